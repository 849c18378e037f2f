// RUN: niwaki-opt %s -p fuse | filecheck %s

// Bias, activation and its mask are the epilogue of the convolution; both results leave it.
func.func @epilogue(%x: tensor<1x4x4x1xf32>) -> (tensor<1x4x4x8xf32>, tensor<1x4x4x8xi1>) {
  %w = train.parameter "w" {sha256 = ""} : tensor<8x1x1x1xf32>
  %b = train.parameter "b" {sha256 = ""} : tensor<8xf32>
  %zero = nn.constant {value = 0.0 : f32, shape = array<i64>} : tensor<f32>
  %0 = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1} : (tensor<1x4x4x1xf32>, tensor<8x1x1x1xf32>) -> tensor<1x4x4x8xf32>
  %1 = nn.add %0, %b : (tensor<1x4x4x8xf32>, tensor<8xf32>) -> tensor<1x4x4x8xf32>
  %2 = nn.relu %1 : (tensor<1x4x4x8xf32>) -> tensor<1x4x4x8xf32>
  %3 = nn.compare %2, %zero {predicate = "gt"} : (tensor<1x4x4x8xf32>, tensor<f32>) -> tensor<1x4x4x8xi1>
  func.return %2, %3 : tensor<1x4x4x8xf32>, tensor<1x4x4x8xi1>
}
// CHECK:      func.func @epilogue
// CHECK-NEXT:   %w = train.parameter
// CHECK-NEXT:   %b = train.parameter
// CHECK-NEXT:   nn.fused(%x, %w, %b) : {{.*}} -> (tensor<1x4x4x8xf32>, tensor<1x4x4x8xi1>) {
// CHECK:          nn.constant
// CHECK-NEXT:     nn.conv2d
// CHECK-NEXT:     nn.add
// CHECK-NEXT:     nn.relu
// CHECK-NEXT:     nn.compare
// CHECK-NEXT:     nn.yield
// CHECK-NEXT:   }
// CHECK-NEXT:   func.return

// The squares are never in memory. What follows the sum has the shape of the sum.
func.func @prologue(%x: tensor<4x8xf32>) -> tensor<1x8xf32> {
  %0 = nn.mul %x, %x : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = nn.reduce_sum %0 {axes = array<i64: 0>} : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %2 = nn.sqrt %1 : (tensor<1x8xf32>) -> tensor<1x8xf32>
  func.return %2 : tensor<1x8xf32>
}
// CHECK:      func.func @prologue
// CHECK-NEXT:   nn.fused(%x) : (tensor<4x8xf32>) -> tensor<1x8xf32> {
// CHECK:          nn.mul
// CHECK-NEXT:     nn.reduce_sum
// CHECK-NEXT:     nn.sqrt

// The mean must be there before the centred values: two groups. The centred values are computed
// twice rather than written to memory between the two.
func.func @variance(%x: tensor<4x8xf32>) -> (tensor<1x8xf32>, tensor<4x8xf32>) {
  %mean = nn.reduce_mean %x {axes = array<i64: 0>} : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %0 = nn.sub %x, %mean : (tensor<4x8xf32>, tensor<1x8xf32>) -> tensor<4x8xf32>
  %1 = nn.mul %0, %0 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %var = nn.reduce_mean %1 {axes = array<i64: 0>} : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %2 = nn.div %0, %var : (tensor<4x8xf32>, tensor<1x8xf32>) -> tensor<4x8xf32>
  func.return %var, %2 : tensor<1x8xf32>, tensor<4x8xf32>
}
// CHECK:      func.func @variance
// CHECK-NEXT:   [[M:%.*]] = nn.reduce_mean %x
// CHECK-NEXT:   [[V:%.*]] = nn.fused(%x, [[M]]) : {{.*}} -> tensor<1x8xf32> {
// CHECK:          nn.sub
// CHECK-NEXT:     nn.mul
// CHECK-NEXT:     nn.reduce_mean
// CHECK:        nn.fused(%x, [[M]], [[V]]) : {{.*}} -> tensor<4x8xf32> {
// CHECK:          nn.sub
// CHECK-NEXT:     nn.div

// The update follows the product that reads the old parameter, and no gradient is in memory.
func.func @update(%x: tensor<4x8xf32>, %dy: tensor<4x2xf32>, %lr: tensor<f32>) -> tensor<4x8xf32> {
  %w = train.parameter "w" {sha256 = "", update = array<i64: 2, 8>} : tensor<2x8xf32>
  %g = nn.matmul %dy, %x {transpose_a = true, transpose_b = false} : (tensor<4x2xf32>, tensor<4x8xf32>) -> tensor<2x8xf32>
  %0 = nn.mul %g, %lr : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %1 = nn.sub %w, %0 : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %dx = nn.matmul %dy, %w {transpose_a = false, transpose_b = false} : (tensor<4x2xf32>, tensor<2x8xf32>) -> tensor<4x8xf32>
  train.assign %w, %1 : tensor<2x8xf32>, tensor<2x8xf32>
  func.return %dx : tensor<4x8xf32>
}
// CHECK:      func.func @update
// CHECK-NEXT:   %w = train.parameter
// CHECK-NEXT:   %dx = nn.matmul %dy, %w
// CHECK-NEXT:   [[P:%.*]] = nn.fused(%dy, %x, %lr, %w) : {{.*}} -> tensor<2x8xf32> {
// CHECK:          nn.matmul
// CHECK-NEXT:     nn.mul
// CHECK-NEXT:     nn.sub
// CHECK:        train.assign %w, [[P]]

// Keeping %x to the end instead of its 32 times smaller mask would cost memory.
func.func @mask_is_kept(%a: tensor<4x8xf32>, %b: tensor<8x8xf32>) -> tensor<4x8xf32> {
  %zero = nn.constant {value = 0.0 : f32, shape = array<i64>} : tensor<f32>
  %x = nn.matmul %a, %b {transpose_a = false, transpose_b = false} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
  %mask = nn.compare %x, %zero {predicate = "gt"} : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xi1>
  %y = nn.matmul %x, %b {transpose_a = false, transpose_b = false} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
  %z = nn.matmul %y, %b {transpose_a = false, transpose_b = false} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
  %r = nn.select %mask, %z, %zero : (tensor<4x8xi1>, tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  func.return %r : tensor<4x8xf32>
}
// CHECK:      func.func @mask_is_kept
// CHECK:        nn.fused{{.*}} -> (tensor<4x8xf32>, tensor<4x8xi1>) {
// CHECK:        nn.fused{{.*}} -> tensor<4x8xf32> {
// CHECK:          nn.matmul
// CHECK-NEXT:     nn.select

// Values of different shapes stay apart.
func.func @apart(%x: tensor<4x8xf32>, %y: tensor<8xf32>) -> tensor<4x8xf32> {
  %0 = nn.exp %y : (tensor<8xf32>) -> tensor<8xf32>
  %1 = nn.mul %x, %0 : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  func.return %1 : tensor<4x8xf32>
}
// CHECK:      func.func @apart
// CHECK-NOT:    nn.fused
