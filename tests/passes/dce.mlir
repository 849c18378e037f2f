// RUN: niwaki-opt %s -p dce | filecheck %s

// A dead chain goes as a whole, an assignment and what it needs stay.
func.func @train_step(%x: tensor<2xf32>) -> tensor<2xf32> {
  %unused = train.parameter "unused" {sha256 = ""} : tensor<2xf32>
  %dead = nn.add %x, %unused : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  %dead2 = nn.exp %dead : (tensor<2xf32>) -> tensor<2xf32>
  %s = train.state "s" {init = 0.0 : f32} : tensor<2xf32>
  %0 = nn.add %s, %x : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  train.assign %s, %0 : tensor<2xf32>, tensor<2xf32>
  %1 = nn.neg %x : (tensor<2xf32>) -> tensor<2xf32>
  func.return %1 : tensor<2xf32>
}
// CHECK:      func.func @train_step
// CHECK-NEXT: %s = train.state "s"
// CHECK-NEXT: %[[SUM:.*]] = nn.add %s, %x
// CHECK-NEXT: train.assign %s, %[[SUM]]
// CHECK-NEXT: %[[Y:.*]] = nn.neg %x
// CHECK-NEXT: func.return %[[Y]]
