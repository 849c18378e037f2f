// RUN: niwaki-opt %s -p expand-updates | filecheck %s

// Nesterov momentum and weight decay, on the leading box of the parameter.
func.func @sgd(%g: tensor<2x3xf32>, %lr: tensor<f32>) {
  %p = train.parameter "p" {sha256 = "", update = array<i64: 2, 3>} : tensor<2x4xf32>
  %v = train.state "p.momentum" {init = 0.0 : f32} : tensor<2x3xf32>
  train.sgd %p, %g, %lr, %v {momentum = 5.0e-1 : f32, weight_decay = 2.5e-1 : f32, nesterov = true} : tensor<2x4xf32>, tensor<2x3xf32>, tensor<f32>, tensor<2x3xf32>
  func.return
}
// CHECK-LABEL: @sgd
// CHECK:      %[[BOX:.*]] = nn.slice %p {starts = array<i64: 0, 0>, sizes = array<i64: 2, 3>, steps = array<i64: 1, 1>}
// CHECK-NEXT: %[[WD:.*]] = nn.constant {value = 2.500000e-01
// CHECK-NEXT: %[[DECAY:.*]] = nn.mul %[[BOX]], %[[WD]]
// CHECK-NEXT: %[[D:.*]] = nn.add %g, %[[DECAY]]
// CHECK-NEXT: %[[M:.*]] = nn.constant {value = 5.000000e-01
// CHECK-NEXT: %[[OLD:.*]] = nn.mul %v, %[[M]]
// CHECK-NEXT: %[[V:.*]] = nn.add %[[OLD]], %[[D]]
// CHECK:      %[[AHEAD:.*]] = nn.mul %[[V]], %{{.*}}
// CHECK-NEXT: %[[STEP:.*]] = nn.add %[[D]], %[[AHEAD]]
// CHECK-NEXT: train.assign %v, %[[V]]
// CHECK-NEXT: %[[MOVE:.*]] = nn.mul %[[STEP]], %lr
// CHECK-NEXT: %[[SAME:.*]] = nn.slice %p {starts = array<i64: 0, 0>, sizes = array<i64: 2, 3>, steps = array<i64: 1, 1>}
// CHECK-NEXT: %[[NEW:.*]] = nn.sub %[[SAME]], %[[MOVE]]
// CHECK-NEXT: train.assign %p, %[[NEW]] : tensor<2x4xf32>, tensor<2x3xf32>
// CHECK-NEXT: func.return

func.func @plain_sgd(%g: tensor<2xf32>, %lr: tensor<f32>) {
  %p = train.parameter "q" {sha256 = "", update = array<i64: 2>} : tensor<2xf32>
  train.sgd %p, %g, %lr {momentum = 0.0 : f32, weight_decay = 0.0 : f32, nesterov = false} : tensor<2xf32>, tensor<2xf32>, tensor<f32>
  func.return
}
// CHECK-LABEL: @plain_sgd
// CHECK:      %[[MOVE:.*]] = nn.mul %g, %lr
// CHECK-NEXT: %[[NEW:.*]] = nn.sub %p, %[[MOVE]]
// CHECK-NEXT: train.assign %p, %[[NEW]]
// CHECK-NEXT: func.return

func.func @clip(%g: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = train.clip_by_norm %g {max_norm = 2.0 : f32} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %0 : tensor<2x3xf32>
}
// CHECK-LABEL: @clip
// CHECK:      %[[SQUARES:.*]] = nn.mul %g, %g
// CHECK-NEXT: %[[SUM:.*]] = nn.reduce_sum %[[SQUARES]] {axes = array<i64: 0, 1>}
// CHECK-NEXT: %[[SCALAR:.*]] = nn.reshape %[[SUM]] {shape = array<i64>}
// CHECK-NEXT: nn.sqrt %[[SCALAR]]
// CHECK:      %[[FACTOR:.*]] = nn.min
// CHECK-NEXT: nn.mul %g, %[[FACTOR]]
