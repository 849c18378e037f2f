// RUN: niwaki-opt %s -p "autodiff{momentum=0.5}" | filecheck %s
// RUN: niwaki-opt %s -p "autodiff{optimizer=adam clip_norm=1.0}" | filecheck %s --check-prefix=ADAM

// The first 2 of 4 input channels of a pointwise convolution are updated, and its bias.
func.func @train_step(%x: tensor<1x2x2x4xf32>, %lr: tensor<f32>) -> tensor<f32> {
  %w = train.parameter "w" {sha256 = "", update = array<i64: 3, 1, 1, 2>} : tensor<3x1x1x4xf32>
  %b = train.parameter "b" {sha256 = "", update = array<i64: 3>} : tensor<3xf32>
  %frozen = train.parameter "frozen" {sha256 = ""} : tensor<3x1x1x3xf32>
  %0 = nn.relu %x : (tensor<1x2x2x4xf32>) -> tensor<1x2x2x4xf32>
  %1 = nn.conv2d %0, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x2x2x4xf32>, tensor<3x1x1x4xf32>) -> tensor<1x2x2x3xf32>
  %2 = nn.add %1, %b : (tensor<1x2x2x3xf32>, tensor<3xf32>) -> tensor<1x2x2x3xf32>
  %3 = nn.relu %2 : (tensor<1x2x2x3xf32>) -> tensor<1x2x2x3xf32>
  %4 = nn.dropout %3 {rate = 0.0 : f32, seed = 0 : i64} : (tensor<1x2x2x3xf32>) -> tensor<1x2x2x3xf32>
  %5 = nn.conv2d %4, %frozen {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x2x2x3xf32>, tensor<3x1x1x3xf32>) -> tensor<1x2x2x3xf32>
  %6 = nn.reduce_sum %5 {axes = array<i64: 0, 1, 2, 3>} : (tensor<1x2x2x3xf32>) -> tensor<1x1x1x1xf32>
  %7 = nn.reshape %6 {shape = array<i64>} : (tensor<1x1x1x1xf32>) -> tensor<f32>
  func.return %7 : tensor<f32>
}

// Slice and mask are taken where the activations are made.
// CHECK:      %[[X:.*]] = nn.relu %x
// CHECK-NEXT: %[[PART:.*]] = nn.slice %[[X]] {starts = array<i64: 0, 0, 0, 0>, sizes = array<i64: 1, 2, 2, 2>
// CHECK-NEXT: nn.conv2d
// CHECK-NEXT: nn.add
// CHECK-NEXT: %[[Y:.*]] = nn.relu
// CHECK-NEXT: %[[ZERO:.*]] = nn.constant {value = 0.000000e+00
// CHECK-NEXT: %[[MASK:.*]] = nn.compare %[[Y]], %[[ZERO]] {predicate = "gt"}
// CHECK:      %[[LOSS:.*]] = nn.reshape
// CHECK-NEXT: %[[ONE:.*]] = nn.constant {value = 1.000000e+00
// CHECK-NEXT: %[[G0:.*]] = nn.reshape %[[ONE]] {shape = array<i64: 1, 1, 1, 1>}
// CHECK-NEXT: %[[G1:.*]] = nn.broadcast %[[G0]]
// CHECK-NEXT: %[[G2:.*]] = nn.conv2d_dx %[[G1]], %frozen
// CHECK-NEXT: %[[NONE:.*]] = nn.constant {value = 0.000000e+00
// CHECK-NEXT: %[[G3:.*]] = nn.select %[[MASK]], %[[G2]], %[[NONE]]
// CHECK-NEXT: %[[SUM:.*]] = nn.reduce_sum %[[G3]] {axes = array<i64: 1, 2>}
// CHECK-NEXT: %[[DB:.*]] = nn.reshape %[[SUM]] {shape = array<i64: 3>}
// CHECK-NEXT: %[[VB:.*]] = train.state "b.momentum" {init = 0.000000e+00 : f32} : tensor<3xf32>
// CHECK-NEXT: train.sgd %b, %[[DB]], %lr, %[[VB]] {momentum = 5.000000e-01 : f32, weight_decay = 0.000000e+00 : f32, nesterov = false}
// CHECK-NEXT: %[[DW:.*]] = nn.conv2d_dw %[[PART]], %[[G3]] {{.*}} -> tensor<3x1x1x2xf32>
// CHECK-NEXT: %[[VW:.*]] = train.state "w.momentum" {init = 0.000000e+00 : f32} : tensor<3x1x1x2xf32>
// CHECK-NEXT: train.sgd %w, %[[DW]], %lr, %[[VW]]
// CHECK-NEXT: func.return %[[LOSS]]

// ADAM:      %[[P1:.*]] = train.state "niwaki.beta1_power" {init = 9.000000e-01 : f32}
// ADAM-NEXT: %[[P2:.*]] = train.state "niwaki.beta2_power"
// ADAM:      %[[CB:.*]], %[[CW:.*]] = train.clip_by_norm %{{.*}}, %{{.*}} {max_norm = 1.000000e+00 : f32}
// ADAM-NEXT: %[[MEAN:.*]] = train.state "w.mean" {init = 0.000000e+00 : f32} : tensor<3x1x1x2xf32>
// ADAM-NEXT: %[[VARIANCE:.*]] = train.state "w.variance"
// ADAM-NEXT: train.adam %w, %[[CW]], %lr, %[[MEAN]], %[[VARIANCE]], %[[P1]], %[[P2]]
// ADAM:      train.adam %b, %[[CB]], %lr,
// ADAM:      %[[N1:.*]] = nn.mul %[[P1]], %{{.*}}
// ADAM-NEXT: train.assign %[[P1]], %[[N1]]
