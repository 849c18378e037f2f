// RUN: niwaki-opt %s -p cse | filecheck %s

// Equal operations on equal operands are one; another attribute, type or order of operands is not.
func.func @f(%x: tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<2x1xf32>, tensor<2x3xf32>) {
  %p = train.parameter "p" {sha256 = ""} : tensor<3xf32>
  %q = train.parameter "p" {sha256 = ""} : tensor<3xf32>
  %0 = nn.sub %x, %p : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %1 = nn.sub %x, %q : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %2 = nn.sub %q, %x : (tensor<3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %3 = nn.mul %0, %1 : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %4 = nn.reduce_sum %3 {axes = array<i64: 1>} : (tensor<2x3xf32>) -> tensor<2x1xf32>
  %5 = nn.reduce_sum %3 {axes = array<i64: 0>} : (tensor<2x3xf32>) -> tensor<1x3xf32>
  %6 = nn.add %2, %5 : (tensor<2x3xf32>, tensor<1x3xf32>) -> tensor<2x3xf32>
  func.return %3, %4, %6 : tensor<2x3xf32>, tensor<2x1xf32>, tensor<2x3xf32>
}
// CHECK:      %p = train.parameter "p"
// CHECK-NEXT: %[[A:.*]] = nn.sub %x, %p
// CHECK-NEXT: %[[B:.*]] = nn.sub %p, %x
// CHECK-NEXT: %[[C:.*]] = nn.mul %[[A]], %[[A]]
// CHECK-NEXT: nn.reduce_sum %[[C]] {axes = array<i64: 1>}
// CHECK-NEXT: %[[D:.*]] = nn.reduce_sum %[[C]] {axes = array<i64: 0>}
// CHECK-NEXT: nn.add %[[B]], %[[D]]
// CHECK-NEXT: func.return
