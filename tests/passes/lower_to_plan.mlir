// RUN: niwaki-opt %s -p "lower-to-plan{target=cortex-m4}" --verify-each | filecheck %s

// CHECK:      func.func @elementwise_0
// CHECK:      func.func @reduce_sum_0
// CHECK-NOT:  func.func @step

// In place, then through a view without a call, straight into the output.

// CHECK-LABEL: plan.program "step" arena 64
// CHECK:      [[X:%[0-9]+]] = plan.view "input" {{.*}}index = 0
// CHECK:      [[Y:%[0-9]+]] = plan.view "arena" {offset = 0
// CHECK-NEXT: plan.call @elementwise_0([[X]], [[Y]]) {reads = 1 : i64, writes = 1 : i64}
// CHECK-NEXT: [[Z:%[0-9]+]] = plan.view "arena" {offset = 0
// CHECK-NEXT: plan.call @elementwise_1([[Y]], [[Z]]) {{.*}}in_place = array<i64: 0, 1>
// CHECK-NEXT: [[R:%[0-9]+]] = plan.view "arena" {offset = 0 {{.*}}memref<2x8xf32>
// CHECK-NEXT: [[OUT:%[0-9]+]] = plan.view "output"
// CHECK-NEXT: plan.call @reduce_sum_0([[R]], [[OUT]])

// Only the leading box of w is read and written, at w's strides.

// CHECK-NEXT: [[BOX:%[0-9]+]] = plan.view "state" {offset = 0 {{.*}}memref<2x2xf32, strided<[4, 1]>>
// CHECK-NEXT: [[NEW:%[0-9]+]] = plan.view "state" {offset = 0 {{.*}}memref<2x2xf32, strided<[4, 1]>>
// CHECK-NEXT: plan.call @elementwise_2([[BOX]], [[NEW]]) {{.*}}in_place = array<i64: 0, 1>
func.func @step(%x: tensor<4x4xf32>) -> tensor<1x8xf32> {
  %w = train.parameter "w" {sha256 = "0", update = array<i64: 2, 2>} : tensor<3x4xf32>
  %y = nn.exp %x : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %z = nn.neg %y : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %r = nn.reshape %z {shape = array<i64: 2, 8>} : (tensor<4x4xf32>) -> tensor<2x8xf32>
  %s = nn.reduce_sum %r {axes = array<i64: 0>} : (tensor<2x8xf32>) -> tensor<1x8xf32>
  %box = nn.slice %w {starts = array<i64: 0, 0>, sizes = array<i64: 2, 2>, steps = array<i64: 1, 1>} : (tensor<3x4xf32>) -> tensor<2x2xf32>
  %new = nn.neg %box : (tensor<2x2xf32>) -> tensor<2x2xf32>
  train.assign %w, %new : tensor<3x4xf32>, tensor<2x2xf32>
  func.return %s : tensor<1x8xf32>
}

// The same kernel serves both programs; frozen parameters are constants.

// CHECK-LABEL: plan.program "infer" arena 0
// CHECK:      plan.view "constants" {offset = 0 {{.*}}label = "f"
// CHECK:      plan.view "output"
// CHECK-NEXT: plan.call @elementwise_0
func.func @infer() -> tensor<4x4xf32> {
  %f = train.parameter "f" {sha256 = "0"} : tensor<4x4xf32>
  %y = nn.exp %f : (tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %y : tensor<4x4xf32>
}
