// RUN: niwaki-opt %s -p constant-fold | filecheck %s

// Without the array of "w" only numbers are folded; see test_constant_fold.py for arrays.
func.func @forward(%x: tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>) {
  %a = nn.constant {value = 2.0 : f32, shape = array<i64>} : tensor<f32>
  %b = nn.constant {value = 3.0 : f32, shape = array<i64>} : tensor<f32>
  %w = train.parameter "w" {sha256 = ""} : tensor<2xf32>
  %0 = nn.mul %a, %b : (tensor<f32>, tensor<f32>) -> tensor<f32>
  %1 = nn.neg %0 : (tensor<f32>) -> tensor<f32>
  %2 = nn.add %x, %1 : (tensor<2xf32>, tensor<f32>) -> tensor<2xf32>
  %3 = nn.mul %w, %a : (tensor<2xf32>, tensor<f32>) -> tensor<2xf32>
  func.return %2, %3 : tensor<2xf32>, tensor<2xf32>
}

// CHECK:      func.func @forward
// CHECK:        [[C:%.*]] = nn.constant {value = -6.000000e+00 : f32, shape = array<i64>} : tensor<f32>
// CHECK-NEXT:   nn.add %x, [[C]]
// CHECK-NEXT:   nn.mul %w, %a
