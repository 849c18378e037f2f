// RUN: niwaki-opt %s -p canonicalize | filecheck %s

func.func @identities(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %zero = nn.constant {value = 0.0 : f32, shape = array<i64>} : tensor<f32>
  %one = nn.constant {value = 1.0 : f32, shape = array<i64>} : tensor<f32>
  %0 = nn.add %zero, %x : (tensor<f32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = nn.mul %0, %one : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %2 = nn.div %1, %one : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %3 = nn.sub %2, %zero : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %4 = nn.neg %3 : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %5 = nn.neg %4 : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %6 = nn.reshape %5 {shape = array<i64: 2, 3>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %7 = nn.transpose %6 {permutation = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %8 = nn.transpose %7 {permutation = array<i64: 1, 0>} : (tensor<3x2xf32>) -> tensor<2x3xf32>
  %9 = nn.concat %8 {axis = 0} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %10 = nn.broadcast %9 {shape = array<i64: 2, 3>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %10 : tensor<2x3xf32>
}
// CHECK:      func.func @identities(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
// CHECK-NEXT:   func.return %x : tensor<2x3xf32>

// A sum that broadcasts its operand is not that operand.
func.func @broadcasting_zero(%x: tensor<3xf32>) -> tensor<2x3xf32> {
  %zero = nn.constant {value = 0.0 : f32, shape = array<i64: 2, 3>} : tensor<2x3xf32>
  %0 = nn.add %x, %zero : (tensor<3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %0 : tensor<2x3xf32>
}
// CHECK:      func.func @broadcasting_zero
// CHECK-NEXT:   %0 = nn.broadcast %x {shape = array<i64: 2, 3>} : (tensor<3xf32>) -> tensor<2x3xf32>

// x * 0 is not 0 where x is infinite.
func.func @times_zero(%x: tensor<3xf32>) -> tensor<3xf32> {
  %zero = nn.constant {value = 0.0 : f32, shape = array<i64>} : tensor<f32>
  %0 = nn.mul %x, %zero : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  func.return %0 : tensor<3xf32>
}
// CHECK:      func.func @times_zero
// CHECK:        nn.mul

func.func @factors(%x: tensor<3xf32>) -> (tensor<3xf32>, tensor<3xf32>) {
  %half = nn.constant {value = 0.5 : f32, shape = array<i64>} : tensor<f32>
  %third = nn.constant {value = 0.3 : f32, shape = array<i64>} : tensor<f32>
  %seventh = nn.constant {value = 0.7 : f32, shape = array<i64>} : tensor<f32>
  %0 = nn.mul %x, %third : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  %1 = nn.mul %0, %half : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  %2 = nn.mul %0, %seventh : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  func.return %1, %2 : tensor<3xf32>, tensor<3xf32>
}
// Two roundings must not become one, unless one factor is a power of two.
// CHECK:      func.func @factors
// CHECK:        [[T:%.*]] = nn.mul %x, %third
// CHECK-NEXT:   [[C:%.*]] = nn.constant {value = 1.500000e-01 : f32, shape = array<i64>}
// CHECK-NEXT:   nn.mul %x, [[C]]
// CHECK-NEXT:   nn.mul [[T]], %seventh

func.func @clamps(%x: tensor<3xf32>, %m: tensor<3xi1>) -> (tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %a = nn.constant {value = 1.0 : f32, shape = array<i64>} : tensor<f32>
  %b = nn.constant {value = 2.0 : f32, shape = array<i64>} : tensor<f32>
  %0 = nn.relu %x : (tensor<3xf32>) -> tensor<3xf32>
  %1 = nn.relu %0 : (tensor<3xf32>) -> tensor<3xf32>
  %2 = nn.relu6 %1 : (tensor<3xf32>) -> tensor<3xf32>
  %3 = nn.max %x, %a : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  %4 = nn.max %3, %b : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  %5 = nn.select %m, %x, %x : (tensor<3xi1>, tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
  func.return %2, %4, %5 : tensor<3xf32>, tensor<3xf32>, tensor<3xf32>
}
// CHECK:      func.func @clamps
// CHECK-NEXT:   [[R:%.*]] = nn.relu6 %x
// CHECK-NEXT:   [[C:%.*]] = nn.constant {value = 2.000000e+00 : f32, shape = array<i64>}
// CHECK-NEXT:   [[M:%.*]] = nn.max %x, [[C]]
// CHECK-NEXT:   func.return [[R]], [[M]], %x

func.func @chains(%x: tensor<4x6xf32>) -> (tensor<3x8xf32>, tensor<1x2xf32>, tensor<6x8xf32>, tensor<1x1xf32>) {
  %0 = nn.reshape %x {shape = array<i64: 24>} : (tensor<4x6xf32>) -> tensor<24xf32>
  %1 = nn.reshape %0 {shape = array<i64: 3, 8>} : (tensor<24xf32>) -> tensor<3x8xf32>
  %2 = nn.slice %x {starts = array<i64: 1, 0>, sizes = array<i64: 2, 3>, steps = array<i64: 2, 2>} : (tensor<4x6xf32>) -> tensor<2x3xf32>
  %3 = nn.slice %2 {starts = array<i64: 1, 0>, sizes = array<i64: 1, 2>, steps = array<i64: 1, 2>} : (tensor<2x3xf32>) -> tensor<1x2xf32>
  %4 = nn.pad %x {low = array<i64: 1, 0>, high = array<i64: 0, 0>, interior = array<i64: 0, 0>, value = 0.0 : f32} : (tensor<4x6xf32>) -> tensor<5x6xf32>
  %5 = nn.pad %4 {low = array<i64: 0, 1>, high = array<i64: 1, 1>, interior = array<i64: 0, 0>, value = 0.0 : f32} : (tensor<5x6xf32>) -> tensor<6x8xf32>
  %6 = nn.reduce_sum %x {axes = array<i64: 1>} : (tensor<4x6xf32>) -> tensor<4x1xf32>
  %7 = nn.reduce_sum %6 {axes = array<i64: 0, 1>} : (tensor<4x1xf32>) -> tensor<1x1xf32>
  func.return %1, %3, %5, %7 : tensor<3x8xf32>, tensor<1x2xf32>, tensor<6x8xf32>, tensor<1x1xf32>
}
// CHECK:      func.func @chains
// CHECK-NEXT:   nn.reshape %x {shape = array<i64: 3, 8>}
// CHECK-NEXT:   nn.slice %x {starts = array<i64: 3, 0>, sizes = array<i64: 1, 2>, steps = array<i64: 2, 4>}
// CHECK-NEXT:   nn.pad %x {low = array<i64: 1, 1>, high = array<i64: 1, 1>,
// CHECK-NEXT:   nn.reduce_sum %x {axes = array<i64: 0, 1>}

func.func @moves_ones(%x: tensor<1x4x1x6xf32>) -> tensor<4x6x1x1xf32> {
  %0 = nn.transpose %x {permutation = array<i64: 1, 3, 0, 2>} : (tensor<1x4x1x6xf32>) -> tensor<4x6x1x1xf32>
  func.return %0 : tensor<4x6x1x1xf32>
}
// CHECK:      func.func @moves_ones
// CHECK-NEXT:   nn.reshape %x {shape = array<i64: 4, 6, 1, 1>}

func.func @needless_broadcast(%x: tensor<2x3xf32>, %b: tensor<3xf32>) -> tensor<2x3xf32> {
  %0 = nn.broadcast %b {shape = array<i64: 2, 3>} : (tensor<3xf32>) -> tensor<2x3xf32>
  %1 = nn.add %x, %0 : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %1 : tensor<2x3xf32>
}
// CHECK:      func.func @needless_broadcast
// CHECK-NEXT:   nn.add %x, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>

func.func @padded_convolution(%x: tensor<1x4x4x1xf32>, %w: tensor<1x3x3x1xf32>) -> tensor<1x3x3x1xf32> {
  %0 = nn.pad %x {low = array<i64: 0, 0, 1, 0>, high = array<i64: 0, 1, 0, 0>, interior = array<i64: 0, 0, 0, 0>, value = 0.0 : f32} : (tensor<1x4x4x1xf32>) -> tensor<1x5x5x1xf32>
  %1 = nn.conv2d %0, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1} : (tensor<1x5x5x1xf32>, tensor<1x3x3x1xf32>) -> tensor<1x3x3x1xf32>
  func.return %1 : tensor<1x3x3x1xf32>
}
// CHECK:      func.func @padded_convolution
// CHECK-NEXT:   nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 1, 1, 0>,

func.func @rows(%x: tensor<6x4xf32>, %r: tensor<2x3x4xf32>, %b: tensor<4xf32>) -> tensor<2x3x4xf32> {
  %0 = nn.reshape %x {shape = array<i64: 2, 3, 4>} : (tensor<6x4xf32>) -> tensor<2x3x4xf32>
  %1 = nn.add %0, %b : (tensor<2x3x4xf32>, tensor<4xf32>) -> tensor<2x3x4xf32>
  %2 = nn.add %r, %1 : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  %3 = nn.layer_norm %2, %b, %b {epsilon = 1.0 : f32} : (tensor<2x3x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x3x4xf32>
  func.return %3 : tensor<2x3x4xf32>
}
// CHECK:      func.func @rows
// CHECK-NEXT:   [[A:%.*]] = nn.add %x, %b
// CHECK-NEXT:   [[R:%.*]] = nn.reshape %r {shape = array<i64: 6, 4>}
// CHECK-NEXT:   [[S:%.*]] = nn.add [[R]], [[A]]
// CHECK-NEXT:   [[N:%.*]] = nn.layer_norm [[S]], %b, %b
// CHECK-NEXT:   nn.reshape [[N]] {shape = array<i64: 2, 3, 4>}

func.func @rows_stay(%x: tensor<6x4xf32>, %p: tensor<3x4xf32>, %s: tensor<2x3x5xf32>, %t: tensor<2x5x4xf32>) -> (tensor<2x3x4xf32>, tensor<2x3x4xf32>) {
  %0 = nn.reshape %x {shape = array<i64: 2, 3, 4>} : (tensor<6x4xf32>) -> tensor<2x3x4xf32>
  %1 = nn.add %0, %p : (tensor<2x3x4xf32>, tensor<3x4xf32>) -> tensor<2x3x4xf32>
  %2 = nn.matmul %s, %t {transpose_a = false, transpose_b = false} : (tensor<2x3x5xf32>, tensor<2x5x4xf32>) -> tensor<2x3x4xf32>
  %3 = nn.add %0, %2 : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
  func.return %1, %3 : tensor<2x3x4xf32>, tensor<2x3x4xf32>
}
// CHECK:      func.func @rows_stay
// CHECK-NEXT:   [[X:%.*]] = nn.reshape %x
// CHECK-NEXT:   nn.add [[X]], %p
// CHECK-NEXT:   nn.matmul
// CHECK-NEXT:   nn.add [[X]]

func.func @step_of_rows(%t: tensor<9x4xf32>, %x: tensor<2x4xf32>, %i: tensor<2xi32>, %lr: tensor<f32>) -> tensor<9x4xf32> {
  %0 = nn.scatter_add %x, %i {rows = 9 : i64} : (tensor<2x4xf32>, tensor<2xi32>) -> tensor<9x4xf32>
  %1 = nn.mul %0, %lr : (tensor<9x4xf32>, tensor<f32>) -> tensor<9x4xf32>
  %2 = nn.sub %t, %1 : (tensor<9x4xf32>, tensor<9x4xf32>) -> tensor<9x4xf32>
  func.return %2 : tensor<9x4xf32>
}
// CHECK:      func.func @step_of_rows
// CHECK-NEXT:   [[S:%.*]] = nn.mul %x, %lr
// CHECK-NEXT:   [[N:%.*]] = nn.neg [[S]]
// CHECK-NEXT:   nn.add_rows %t, [[N]], %i
