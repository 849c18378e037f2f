// RUN: niwaki-opt %s -p fold-batch-norm | filecheck %s

// Without arrays there is nothing to fold into; see test_fold_batch_norm.py.
func.func @forward(%x: tensor<1x4x4x1xf32>) -> tensor<1x4x4x1xf32> {
  %w = train.parameter "w" {sha256 = ""} : tensor<1x1x1x1xf32>
  %gamma = train.parameter "gamma" {sha256 = ""} : tensor<1xf32>
  %beta = train.parameter "beta" {sha256 = ""} : tensor<1xf32>
  %mean = train.parameter "mean" {sha256 = ""} : tensor<1xf32>
  %var = train.parameter "var" {sha256 = ""} : tensor<1xf32>
  %0 = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1} : (tensor<1x4x4x1xf32>, tensor<1x1x1x1xf32>) -> tensor<1x4x4x1xf32>
  %1 = nn.batch_norm %0, %gamma, %beta, %mean, %var {epsilon = 1.0e-05 : f32, momentum = 0.1 : f32, training = false} : (tensor<1x4x4x1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>) -> tensor<1x4x4x1xf32>
  func.return %1 : tensor<1x4x4x1xf32>
}

// CHECK: nn.batch_norm
