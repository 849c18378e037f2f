// RUN: niwaki-opt %s -p select-updates | filecheck %s --check-prefix=FULL
// RUN: niwaki-opt %s -p "select-updates{update=bias}" | filecheck %s --check-prefix=BIAS
// RUN: niwaki-opt %s -p "select-updates{update=head}" | filecheck %s --check-prefix=HEAD

func.func @train_step(%x: tensor<2x1x1x4xf32>, %lr: tensor<f32>) -> tensor<2x3xf32> {
  %w = train.parameter "conv.weight" {sha256 = ""} : tensor<5x1x1x4xf32>
  %b = train.parameter "conv.bias" {sha256 = ""} : tensor<5xf32>
  %s = train.parameter "scale" {sha256 = ""} : tensor<5xf32>
  %h = train.parameter "head.weight" {sha256 = ""} : tensor<3x5xf32>
  %0 = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<2x1x1x4xf32>, tensor<5x1x1x4xf32>) -> tensor<2x1x1x5xf32>
  %1 = nn.add %0, %b : (tensor<2x1x1x5xf32>, tensor<5xf32>) -> tensor<2x1x1x5xf32>
  %2 = nn.mul %1, %s : (tensor<2x1x1x5xf32>, tensor<5xf32>) -> tensor<2x1x1x5xf32>
  %3 = nn.reshape %2 {shape = array<i64: 2, 5>} : (tensor<2x1x1x5xf32>) -> tensor<2x5xf32>
  %4 = nn.matmul %3, %h {transpose_a = false, transpose_b = true} : (tensor<2x5xf32>, tensor<3x5xf32>) -> tensor<2x3xf32>
  func.return %4 : tensor<2x3xf32>
}

// FULL: "conv.weight" {sha256 = "", update = array<i64: 5, 1, 1, 4>}
// FULL: "conv.bias" {sha256 = "", update = array<i64: 5>}
// FULL: "scale" {sha256 = "", update = array<i64: 5>}
// FULL: "head.weight" {sha256 = "", update = array<i64: 3, 5>}

// BIAS: "conv.weight" {sha256 = ""} :
// BIAS: "conv.bias" {sha256 = "", update = array<i64: 5>}
// BIAS: "scale" {sha256 = ""} :
// BIAS: "head.weight" {sha256 = "", update = array<i64: 3, 5>}

// HEAD: "conv.weight" {sha256 = ""} :
// HEAD: "conv.bias" {sha256 = ""} :
// HEAD: "scale" {sha256 = ""} :
// HEAD: "head.weight" {sha256 = "", update = array<i64: 3, 5>}
