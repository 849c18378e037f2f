// RUN: niwaki-opt %s -p "tile-rows{limit=21000}" | filecheck %s

// A wide tensor between two narrow ones: computed in strips, the seams twice.

func.func @infer(%x: tensor<1x16x16x2xf32>) -> tensor<1x16x16x2xf32> {
  %w0 = train.parameter "expand" {sha256 = "00"} : tensor<32x1x1x2xf32>
  %w1 = train.parameter "project" {sha256 = "01"} : tensor<2x3x3x32xf32>
  %0 = nn.conv2d %x, %w0 {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x16x16x2xf32>, tensor<32x1x1x2xf32>) -> tensor<1x16x16x32xf32>
  %1 = nn.relu %0 : (tensor<1x16x16x32xf32>) -> tensor<1x16x16x32xf32>
  %2 = nn.conv2d %1, %w1 {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x16x16x32xf32>, tensor<2x3x3x32xf32>) -> tensor<1x16x16x2xf32>
  func.return %2 : tensor<1x16x16x2xf32>
}

// CHECK-LABEL: func.func @infer
// CHECK-NOT: tensor<1x16x16x32xf32>
// CHECK: nn.slice %x {starts = array<i64: 0, 0, 0, 0>, sizes = array<i64: 1, 9, 16, 2>
// CHECK: padding = array<i64: 1, 1, 0, 1>
// CHECK: nn.slice %x {starts = array<i64: 0, 7, 0, 0>, sizes = array<i64: 1, 9, 16, 2>
// CHECK: padding = array<i64: 0, 1, 1, 1>
// CHECK: nn.concat
