// RUN: niwaki-opt %s -p build-training | filecheck %s
// RUN: niwaki-opt %s -p "build-training{loss=mse}" | filecheck %s --check-prefix=MSE

func.func @forward(%x: tensor<4x3xf32>) -> tensor<4x3xf32> {
  %gamma = train.parameter "gamma" {sha256 = ""} : tensor<3xf32>
  %beta = train.parameter "beta" {sha256 = ""} : tensor<3xf32>
  %mean = train.parameter "mean" {sha256 = ""} : tensor<3xf32>
  %var = train.parameter "var" {sha256 = ""} : tensor<3xf32>
  %0 = nn.batch_norm %x, %gamma, %beta, %mean, %var {epsilon = 1.0e-5 : f32, momentum = 2.5e-1 : f32, training = true} : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<4x3xf32>
  %1 = nn.dropout %0 {rate = 5.0e-1 : f32, seed = 7 : i64} : (tensor<4x3xf32>) -> tensor<4x3xf32>
  %2 = nn.dropout %1 {rate = 5.0e-1 : f32, seed = 7 : i64} : (tensor<4x3xf32>) -> tensor<4x3xf32>
  func.return %2 : tensor<4x3xf32>
}

// CHECK:      func.func @train_step(%x: tensor<4x3xf32>, %target: tensor<4xi32>, %lr: tensor<f32>) -> tensor<f32> {
// CHECK-NEXT:   %[[STEP:.*]] = train.state "niwaki.step" {init = 0 : i32} : tensor<i32>
// CHECK:        %[[Y:.*]], %[[MEAN:.*]], %[[VAR:.*]] = nn.batch_norm_train %x, %gamma, %beta {epsilon = 1.000000e-05 : f32}
// CHECK-NEXT:   %[[KEEP:.*]] = nn.constant {value = 7.500000e-01
// CHECK-NEXT:   %[[OLD:.*]] = nn.mul %mean, %[[KEEP]]
// CHECK-NEXT:   %[[MOMENTUM:.*]] = nn.constant {value = 2.500000e-01
// CHECK-NEXT:   %[[NEW:.*]] = nn.mul %[[MEAN]], %[[MOMENTUM]]
// CHECK-NEXT:   %[[MOVED:.*]] = nn.add %[[OLD]], %[[NEW]]
// The running variance is unbiased: 1/4 * 4 / (4 - 1).
// CHECK:        nn.constant {value = 0.333333343
// CHECK:        nn.random_mask %[[Y]], %[[STEP]] {rate = 5.000000e-01 : f32, seed = 7 : i64}
// CHECK:        %[[SCALE:.*]] = nn.constant {value = 2.000000e+00
// CHECK:        nn.mul %[[Y]], %[[SCALE]]
// CHECK:        nn.random_mask %{{.*}}, %[[STEP]] {rate = 5.000000e-01 : f32, seed = 2654435776 : i64}
// CHECK:        train.assign %mean, %[[MOVED]]
// CHECK-NEXT:   train.assign %var,
// CHECK:        train.assign %[[STEP]],
// CHECK-NEXT:   %[[LOSS:.*]] = nn.cross_entropy %{{.*}}, %target
// CHECK-NEXT:   func.return %[[LOSS]] : tensor<f32>

// CHECK:      func.func @infer(%x: tensor<4x3xf32>) -> tensor<4x3xf32> {
// CHECK:        %[[INFER:.*]] = nn.batch_norm %x, {{.*}}training = false}
// CHECK-NEXT:   func.return %[[INFER]] : tensor<4x3xf32>

// CHECK:      func.func @evaluate(%x: tensor<4x3xf32>, %target: tensor<4xi32>) -> (tensor<f32>, tensor<i32>) {
// CHECK:        %[[OUT:.*]] = nn.batch_norm %x, {{.*}}training = false}
// CHECK-NEXT:   %[[ELOSS:.*]] = nn.cross_entropy %[[OUT]], %target
// CHECK-NEXT:   %[[CORRECT:.*]] = nn.count_correct %[[OUT]], %target
// CHECK-NEXT:   func.return %[[ELOSS]], %[[CORRECT]]

// MSE: @train_step(%x: tensor<4x3xf32>, %target: tensor<4x3xf32>, %lr: tensor<f32>) -> tensor<f32>
// MSE: nn.mse
// MSE: @infer(%x: tensor<4x3xf32>) -> tensor<4x3xf32>
// MSE: @evaluate(%x: tensor<4x3xf32>, %target: tensor<4x3xf32>) -> tensor<f32>
