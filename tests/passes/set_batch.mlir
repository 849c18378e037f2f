// RUN: niwaki-opt %s -p "set-batch{batch=8}" | filecheck %s

func.func @forward(%x: tensor<1x4x4x2xf32>) -> tensor<1x3xf32> {
  %w = train.parameter "w" {sha256 = ""} : tensor<2x1x1x2xf32>
  %0 = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1} : (tensor<1x4x4x2xf32>, tensor<2x1x1x2xf32>) -> tensor<1x4x4x2xf32>
  %1 = nn.slice %0 {starts = array<i64: 0, 0, 0, 0>, sizes = array<i64: 1, 4, 2, 2>, steps = array<i64: 1, 1, 1, 1>} : (tensor<1x4x4x2xf32>) -> tensor<1x4x2x2xf32>
  // Rows of one sample stay together: dimension 0 may be a multiple of the batch.
  %2 = nn.reshape %1 {shape = array<i64: 4, 4>} : (tensor<1x4x2x2xf32>) -> tensor<4x4xf32>
  %3 = nn.reshape %2 {shape = array<i64: 1, 16>} : (tensor<4x4xf32>) -> tensor<1x16xf32>
  // The weights' dimension 0 happens to be 1 as well: it stays.
  %v = train.parameter "v" {sha256 = ""} : tensor<1x48xf32>
  %4 = nn.reshape %v {shape = array<i64: 3, 16>} : (tensor<1x48xf32>) -> tensor<3x16xf32>
  %5 = nn.matmul %3, %4 {transpose_a = false, transpose_b = true} : (tensor<1x16xf32>, tensor<3x16xf32>) -> tensor<1x3xf32>
  func.return %5 : tensor<1x3xf32>
}

// CHECK:      func.func @forward(%x: tensor<8x4x4x2xf32>) -> tensor<8x3xf32> {
// CHECK:        nn.slice {{.*}} sizes = array<i64: 8, 4, 2, 2>{{.*}} -> tensor<8x4x2x2xf32>
// CHECK-NEXT:   nn.reshape {{.*}} {shape = array<i64: 32, 4>} : (tensor<8x4x2x2xf32>) -> tensor<32x4xf32>
// CHECK-NEXT:   nn.reshape {{.*}} {shape = array<i64: 8, 16>}
// CHECK:        nn.reshape %v {shape = array<i64: 3, 16>} : (tensor<1x48xf32>) -> tensor<3x16xf32>
// CHECK-NEXT:   nn.matmul {{.*}} : (tensor<8x16xf32>, tensor<3x16xf32>) -> tensor<8x3xf32>
