// RUN: niwaki-opt %s -p decompose | filecheck %s

func.func @softmax(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = nn.softmax %x {axis = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %0 : tensor<2x3xf32>
}
// CHECK-LABEL: @softmax
// CHECK-NEXT: %[[MAX:.*]] = nn.reduce_max %x {axes = array<i64: 1>}
// CHECK-NEXT: %[[SHIFTED:.*]] = nn.sub %x, %[[MAX]]
// CHECK-NEXT: %[[POWERS:.*]] = nn.exp %[[SHIFTED]]
// CHECK-NEXT: %[[SUM:.*]] = nn.reduce_sum %[[POWERS]] {axes = array<i64: 1>}
// CHECK-NEXT: %[[Y:.*]] = nn.div %[[POWERS]], %[[SUM]]
// CHECK-NEXT: func.return %[[Y]]

func.func @cross_entropy(%x: tensor<2x3xf32>, %t: tensor<2xi32>) -> tensor<f32> {
  %0 = nn.cross_entropy %x, %t : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<f32>
  func.return %0 : tensor<f32>
}
// CHECK-LABEL: @cross_entropy
// CHECK-NOT:  nn.log_softmax
// CHECK:      %[[ROWS:.*]] = nn.one_hot %{{.*}} {depth = 3 : i64}
// CHECK-NEXT: %[[PRODUCT:.*]] = nn.mul %[[ROWS]], %x
// CHECK-NEXT: %[[CHOSEN:.*]] = nn.reduce_sum %[[PRODUCT]] {axes = array<i64: 1>}
// CHECK-NEXT: %[[MAX:.*]] = nn.reduce_max %x {axes = array<i64: 1>}
// CHECK:      %[[LOG:.*]] = nn.log
// CHECK-NEXT: %[[SHIFTED:.*]] = nn.sub %[[CHOSEN]], %[[MAX]]
// CHECK-NEXT: %[[LOSS:.*]] = nn.sub %[[LOG]], %[[SHIFTED]]
// CHECK:      %[[TERMS:.*]] = nn.select %{{.*}}, %[[LOSS]]
// CHECK-NEXT: %[[SUM:.*]] = nn.reduce_sum %[[TERMS]] {axes = array<i64: 0, 1>}
// CHECK-NEXT: %[[SCALAR:.*]] = nn.reshape %[[SUM]]
// CHECK-NEXT: %[[SHARE:.*]] = nn.constant {value = 5.000000e-01
// CHECK-NEXT: nn.mul %[[SCALAR]], %[[SHARE]]

// The variance is the mean of squared deviations, not a difference of means.
func.func @batch_norm_train(%x: tensor<4x3xf32>, %g: tensor<3xf32>, %b: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %mean, %var = nn.batch_norm_train %x, %g, %b {epsilon = 1.0e-3 : f32} : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  func.return %y, %mean, %var : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}
// CHECK-LABEL: @batch_norm_train
// CHECK-NEXT: nn.reduce_mean %x {axes = array<i64: 0>}
// CHECK-NEXT: %[[MEAN:.*]] = nn.reshape
// CHECK-NEXT: %[[CENTRED:.*]] = nn.sub %x, %[[MEAN]]
// CHECK-NEXT: %[[SQUARES:.*]] = nn.mul %[[CENTRED]], %[[CENTRED]]
// CHECK-NEXT: nn.reduce_mean %[[SQUARES]] {axes = array<i64: 0>}
// CHECK-NEXT: %[[VAR:.*]] = nn.reshape
// CHECK:      %[[INVERSE:.*]] = nn.rsqrt
// CHECK-NEXT: %[[SCALE:.*]] = nn.mul %g, %[[INVERSE]]
// CHECK-NEXT: %[[SHIFT:.*]] = nn.mul %[[MEAN]], %[[SCALE]]
// CHECK-NEXT: %[[INTERCEPT:.*]] = nn.sub %b, %[[SHIFT]]
// CHECK-NEXT: %[[SCALED:.*]] = nn.mul %x, %[[SCALE]]
// CHECK-NEXT: %[[Y:.*]] = nn.add %[[SCALED]], %[[INTERCEPT]]
// CHECK-NEXT: func.return %[[Y]], %[[MEAN]], %[[VAR]]

func.func @dropout(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = nn.dropout %x {rate = 5.0e-1 : f32, seed = 1 : i64} : (tensor<2xf32>) -> tensor<2xf32>
  func.return %0 : tensor<2xf32>
}
// CHECK-LABEL: @dropout
// CHECK-NEXT: func.return %x
