// RUN: niwaki-opt %s -p "autodiff,narrow-stash{dtype=bf16}" | filecheck %s
// RUN: niwaki-opt %s -p "autodiff,narrow-stash{dtype=i8}" | filecheck %s --check-prefix=I8

// The input of a dense layer, read as a relu6 and as a matrix; a tanh, read by elementwise
// operations; a bias of its own.
func.func @train_step(%x: tensor<8x4x4xf32>, %lr: tensor<f32>) -> tensor<f32> {
  %v = train.parameter "v" {sha256 = "", update = array<i64: 4>} : tensor<4xf32>
  %w = train.parameter "w" {sha256 = "", update = array<i64: 16, 16>} : tensor<16x16xf32>
  %0 = nn.add %x, %v : (tensor<8x4x4xf32>, tensor<4xf32>) -> tensor<8x4x4xf32>
  %1 = nn.relu6 %0 : (tensor<8x4x4xf32>) -> tensor<8x4x4xf32>
  %2 = nn.reshape %1 {shape = array<i64: 8, 16>} : (tensor<8x4x4xf32>) -> tensor<8x16xf32>
  %3 = nn.matmul %2, %w {transpose_a = false, transpose_b = true} : (tensor<8x16xf32>, tensor<16x16xf32>) -> tensor<8x16xf32>
  %4 = nn.tanh %3 : (tensor<8x16xf32>) -> tensor<8x16xf32>
  %5 = nn.reduce_sum %4 {axes = array<i64: 0, 1>} : (tensor<8x16xf32>) -> tensor<1x1xf32>
  %6 = nn.reshape %5 {shape = array<i64>} : (tensor<1x1xf32>) -> tensor<f32>
  func.return %6 : tensor<f32>
}

// The mask is of the exact relu6; both activations are narrow behind their last use.
// CHECK:      %[[RELU:.*]] = nn.relu6
// CHECK:      %[[MASK:.*]] = nn.and
// CHECK-NEXT: nn.reshape %[[RELU]]
// CHECK-NEXT: nn.matmul
// CHECK-NEXT: %[[X:.*]] = nn.narrow %[[RELU]] {to = bf16} : (tensor<8x4x4xf32>) -> tensor<8x4x4xbf16>
// CHECK-NEXT: %[[TANH:.*]] = nn.tanh
// CHECK-NEXT: nn.reduce_sum %[[TANH]]
// CHECK-NEXT: %[[Y:.*]] = nn.narrow %[[TANH]] {to = bf16}
// CHECK-NEXT: nn.reshape
// CHECK:      nn.cast %[[Y]] {to = f32} : (tensor<8x16xbf16>) -> tensor<8x16xf32>
// CHECK:      %[[ROWS:.*]] = nn.reshape %[[X]] {shape = array<i64: 8, 16>} : (tensor<8x4x4xbf16>) -> tensor<8x16xbf16>
// CHECK-NEXT: nn.matmul %{{.*}}, %[[ROWS]] {{.*}} : (tensor<8x16xf32>, tensor<8x16xbf16>) -> tensor<16x16xf32>
// CHECK:      nn.select %[[MASK]]

// I8:      %[[RELU:.*]] = nn.relu6
// I8:      nn.matmul
// I8:      nn.abs %[[RELU]]
// I8-NEXT: nn.reduce_max
// I8:      %[[SCALE:.*]] = nn.max
// I8:      %[[INVERSE:.*]] = nn.div
// I8-NEXT: %[[SCALED:.*]] = nn.mul %[[RELU]], %[[INVERSE]]
// I8-NEXT: nn.narrow %[[SCALED]] {to = i8}
// I8:      nn.tanh
// I8:      %[[CAST:.*]] = nn.cast %{{.*}} {to = f32} : (tensor<8x16xi8>) -> tensor<8x16xf32>
// I8-NEXT: nn.mul %[[CAST]], %{{.*}} : (tensor<8x16xf32>, tensor<f32>)
// I8:      %[[DW:.*]] = nn.matmul {{.*}} : (tensor<8x16xf32>, tensor<8x16xi8>) -> tensor<16x16xf32>
// I8-NEXT: nn.mul %[[DW]], %[[SCALE]] : (tensor<16x16xf32>, tensor<f32>)
