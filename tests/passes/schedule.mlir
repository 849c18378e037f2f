// RUN: niwaki-opt %s -p schedule --verify-each | filecheck %s
// RUN: niwaki-opt %s -p "schedule{order=source}" --verify-each | filecheck %s --check-prefix=SOURCE

// The update moves to where its value is complete, and behind the product that reads the old one.

// CHECK-LABEL: func.func @update
// CHECK:      %w = train.parameter "w"
// CHECK:      nn.matmul %x, %w
// CHECK-NEXT: %new = nn.neg %w
// CHECK-NEXT: train.assign %w, %new
// CHECK:      nn.exp
// SOURCE-LABEL: func.func @update
// SOURCE:      %w = train.parameter "w"
// SOURCE:      nn.matmul %x, %w
// SOURCE-NEXT: %new = nn.neg %w
// SOURCE-NEXT: train.assign %w, %new
func.func @update(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %w = train.parameter "w" {sha256 = "0"} : tensor<4x4xf32>
  %new = nn.neg %w : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %y = nn.matmul %x, %w {transpose_a = false, transpose_b = false} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %z = nn.exp %y : (tensor<4x4xf32>) -> tensor<4x4xf32>
  train.assign %w, %new : tensor<4x4xf32>, tensor<4x4xf32>
  func.return %z : tensor<4x4xf32>
}

// Two branches, each of which grows and shrinks again: one after the other, not side by side.

// CHECK-LABEL: func.func @branches
// CHECK:      nn.broadcast
// CHECK-NEXT: nn.reduce_sum
// CHECK-NEXT: nn.broadcast
// CHECK-NEXT: nn.reduce_sum
// SOURCE-LABEL: func.func @branches
// SOURCE:      nn.broadcast
// SOURCE-NEXT: nn.broadcast
func.func @branches(%x: tensor<1x4xf32>, %y: tensor<1x4xf32>) -> tensor<1x4xf32> {
  %a = nn.broadcast %x {shape = array<i64: 64, 4>} : (tensor<1x4xf32>) -> tensor<64x4xf32>
  %b = nn.broadcast %y {shape = array<i64: 64, 4>} : (tensor<1x4xf32>) -> tensor<64x4xf32>
  %c = nn.reduce_sum %a {axes = array<i64: 0>} : (tensor<64x4xf32>) -> tensor<1x4xf32>
  %d = nn.reduce_sum %b {axes = array<i64: 0>} : (tensor<64x4xf32>) -> tensor<1x4xf32>
  %e = nn.add %c, %d : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x4xf32>
  func.return %e : tensor<1x4xf32>
}
