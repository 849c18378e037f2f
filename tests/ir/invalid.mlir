// Every message of the verifiers.
// RUN: niwaki-opt %s --split-input-file --verify-diagnostics | filecheck %s

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'nn.relu' must produce tensor<2x3xf32>, not tensor<3xf32>
  %y = nn.relu %x : (tensor<2x3xf32>) -> tensor<3xf32>
  func.return
}

// -----

func.func @f(%x: i32) {
  // CHECK: expected a tensor, got i32
  %y = nn.relu %x : (i32) -> tensor<3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %y: tensor<2xf32>) {
  // CHECK: shapes {{.}}[2, 3], [2]] do not broadcast
  %z = nn.add %x, %y : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %y: tensor<2x3xi32>) {
  // CHECK: element types differ: tensor<2x3xf32>, tensor<2x3xi32>
  %z = nn.add %x, %y : (tensor<2x3xf32>, tensor<2x3xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'approximate' must be "none" or "tanh"
  %y = nn.gelu %x {approximate = "erf"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'predicate' must be one of gt, ge, lt, le, eq
  %y = nn.compare %x, %x {predicate = "ne"} : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi1>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: operands must be masks (i1)
  %y = nn.and %x, %x : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: the first operand must be a mask (i1)
  %y = nn.select %x, %x, %x : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'to' must be bf16 or i8
  %y = nn.narrow %x {to = f16} : (tensor<2x3xf32>) -> tensor<2x3xf16>
  func.return
}

// -----

func.func @f(%x: tensor<4xi32>) {
  // CHECK: the operand must be of f32
  %y = nn.narrow %x {to = i8} : (tensor<4xi32>) -> tensor<4xi8>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: 'strides' must be two positive integers
  %y = nn.conv2d %x, %w {strides = array<i64: 0, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x5x5x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: 'padding' must be four integers >= 0
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x5x5x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: 'dilation' must be two positive integers
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1>, groups = 1 : i64} : (tensor<1x5x5x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: 'groups' must be positive
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 0 : i64} : (tensor<1x5x5x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: a window of 7 does not fit into 5 padded
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 3>, groups = 1 : i64} : (tensor<1x5x5x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%x: tensor<5x5x4xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: the input must have rank 4 (NHWC)
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<5x5x4xf32>, tensor<6x3x3x4xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %w: tensor<6x3x4xf32>) {
  // CHECK: the filter must have rank 4 (OHWI)
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x5x5x4xf32>, tensor<6x3x4xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %w: tensor<6x3x3x3xf32>) {
  // CHECK: input has 4 channels, the filter expects 3
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x5x5x4xf32>, tensor<6x3x3x3xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %w: tensor<5x3x3x2xf32>) {
  // CHECK: 5 output channels do not divide into 2 groups
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 2 : i64} : (tensor<1x5x5x4xf32>, tensor<5x3x3x2xf32>) -> tensor<1x3x3x6xf32>
  func.return
}

// -----

func.func @f(%dy: tensor<1x3x3x5xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: dy has 5 channels, the filter 6 outputs
  %dx = nn.conv2d_dx %dy, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, input_size = array<i64: 5, 5>} : (tensor<1x3x3x5xf32>, tensor<6x3x3x4xf32>) -> tensor<1x5x5x4xf32>
  func.return
}

// -----

func.func @f(%dy: tensor<1x3x3x6xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: 'input_size' does not fit dy
  %dx = nn.conv2d_dx %dy, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, input_size = array<i64: 5, 6>} : (tensor<1x3x3x6xf32>, tensor<6x3x3x4xf32>) -> tensor<1x5x5x4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<5x5x4xf32>, %dy: tensor<1x3x3x6xf32>) {
  // CHECK: x and dy must have rank 4 (NHWC)
  %dw = nn.conv2d_dw %x, %dy {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, kernel_size = array<i64: 3, 3>} : (tensor<5x5x4xf32>, tensor<1x3x3x6xf32>) -> tensor<6x3x3x4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %dy: tensor<1x3x3x6xf32>) {
  // CHECK: 4 channels, 3 groups
  %dw = nn.conv2d_dw %x, %dy {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 3 : i64, kernel_size = array<i64: 3, 3>} : (tensor<1x5x5x4xf32>, tensor<1x3x3x6xf32>) -> tensor<6x3x3x4xf32>
  func.return
}

// -----

func.func @f(%dy: tensor<1x3x3x6xf32>, %w: tensor<6x3x3x4xf32>) {
  // CHECK: 'input_size' must be [H, W]
  %dx = nn.conv2d_dx %dy, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, input_size = array<i64: 5>} : (tensor<1x3x3x6xf32>, tensor<6x3x3x4xf32>) -> tensor<1x5x5x4xf32>
  func.return
}

// -----

func.func @f(%dy: tensor<1x3x3x6xf32>, %w: tensor<3x3x4xf32>) {
  // CHECK: dy must have rank 4 (NHWC), the filter too (OHWI)
  %dx = nn.conv2d_dx %dy, %w {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, input_size = array<i64: 5, 5>} : (tensor<1x3x3x6xf32>, tensor<3x3x4xf32>) -> tensor<1x5x5x4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %dy: tensor<1x3x3x6xf32>) {
  // CHECK: 'kernel_size' must be [height, width]
  %dw = nn.conv2d_dw %x, %dy {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, kernel_size = array<i64: 3>} : (tensor<1x5x5x4xf32>, tensor<1x3x3x6xf32>) -> tensor<6x3x3x4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x5x5x4xf32>, %dy: tensor<1x3x3x6xf32>) {
  // CHECK: 'kernel_size' does not fit x and dy
  %dw = nn.conv2d_dw %x, %dy {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, kernel_size = array<i64: 2, 3>} : (tensor<1x5x5x4xf32>, tensor<1x3x3x6xf32>) -> tensor<6x3x3x4xf32>
  func.return
}

// -----

func.func @f(%a: tensor<2x3x1xf32>, %b: tensor<3x4xf32>) {
  // CHECK: both operands must be matrices
  %y = nn.matmul %a, %b {transpose_a = false, transpose_b = false} : (tensor<2x3x1xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

func.func @f(%a: tensor<2x3x1xf32>, %b: tensor<3x1x4xf32>) {
  // CHECK: both operands must be matrices, or stacks of as many matrices
  %y = nn.matmul %a, %b {transpose_a = false, transpose_b = false} : (tensor<2x3x1xf32>, tensor<3x1x4xf32>) -> tensor<2x3x4xf32>
  func.return
}

// -----

func.func @f(%a: tensor<2x3xf32>, %b: tensor<4x3xf32>) {
  // CHECK: inner sizes differ: 3 and 4
  %y = nn.matmul %a, %b {transpose_a = false, transpose_b = false} : (tensor<2x3xf32>, tensor<4x3xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<1x4x4x2xf32>) {
  // CHECK: 'kernel_size' must be two positive integers
  %y, %i = nn.max_pool2d %x {kernel_size = array<i64: 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>} : (tensor<1x4x4x2xf32>) -> (tensor<1x2x2x2xf32>, tensor<1x2x2x2xi8>)
  func.return
}

// -----

func.func @f(%x: tensor<1x4x4x2xf32>) {
  // CHECK: 'padding' must be smaller than 'kernel_size'
  %y, %i = nn.max_pool2d %x {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 2, 0>} : (tensor<1x4x4x2xf32>) -> (tensor<1x2x2x2xf32>, tensor<1x2x2x2xi8>)
  func.return
}

// -----

func.func @f(%x: tensor<4x4x2xf32>) {
  // CHECK: the input must have rank 4 (NHWC)
  %y, %i = nn.max_pool2d %x {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>} : (tensor<4x4x2xf32>) -> (tensor<1x2x2x2xf32>, tensor<1x2x2x2xi8>)
  func.return
}

// -----

func.func @f(%x: tensor<1x16x10x2xf32>) {
  // CHECK: a max-pool window has at most 128 elements
  %y, %i = nn.max_pool2d %x {kernel_size = array<i64: 16, 9>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>} : (tensor<1x16x10x2xf32>) -> (tensor<1x1x1x2xf32>, tensor<1x1x1x2xi8>)
  func.return
}

// -----

func.func @f(%dy: tensor<1x2x2x2xf32>, %i: tensor<1x2x2x1xi8>) {
  // CHECK: dy and index must have one shape
  %dx = nn.max_pool2d_grad %dy, %i {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>, input_size = array<i64: 4, 4>} : (tensor<1x2x2x2xf32>, tensor<1x2x2x1xi8>) -> tensor<1x4x4x2xf32>
  func.return
}

// -----

func.func @f(%dy: tensor<1x2x2x2xf32>, %i: tensor<1x2x2x2xi8>) {
  // CHECK: 'input_size' does not fit dy
  %dx = nn.max_pool2d_grad %dy, %i {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>, input_size = array<i64: 6, 4>} : (tensor<1x2x2x2xf32>, tensor<1x2x2x2xi8>) -> tensor<1x4x4x2xf32>
  func.return
}

// -----

func.func @f(%dy: tensor<1x2x2x2xf32>) {
  // CHECK: 'input_size' does not fit dy
  %dx = nn.avg_pool2d_grad %dy {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>, input_size = array<i64: 4, 6>, count_include_pad = true} : (tensor<1x2x2x2xf32>) -> tensor<1x4x4x2xf32>
  func.return
}

// -----

func.func @f(%dy: tensor<1x2x2xf32>) {
  // CHECK: dy must have rank 4 (NHWC)
  %dx = nn.avg_pool2d_grad %dy {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>, input_size = array<i64: 4, 4>, count_include_pad = true} : (tensor<1x2x2xf32>) -> tensor<1x4x4x2xf32>
  func.return
}

// -----

func.func @f(%dy: tensor<1x2x2x2xf32>) {
  // CHECK: 'input_size' must be [H, W]
  %dx = nn.avg_pool2d_grad %dy {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>, input_size = array<i64: 4>, count_include_pad = true} : (tensor<1x2x2x2xf32>) -> tensor<1x4x4x2xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %z: tensor<2x3xi32>) {
  // CHECK: element types differ: tensor<2x3xf32>, tensor<2x3xi32>
  %y = nn.concat %x, %z {axis = 0 : i64} : (tensor<2x3xf32>, tensor<2x3xi32>) -> tensor<4x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'axes' must be ascending dimensions of tensor<2x3xf32>
  %y = nn.reduce_sum %x {axes = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'axes' must be ascending dimensions of tensor<2x3xf32>
  %y = nn.reduce_max %x {axes = array<i64: 2>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: cannot reshape tensor<2x3xf32> to [5]
  %y = nn.reshape %x {shape = array<i64: 5>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: tensor<2x3xf32> does not broadcast to [2, 1]
  %y = nn.broadcast %x {shape = array<i64: 2, 1>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'permutation' must permute the 2 dimensions
  %y = nn.transpose %x {permutation = array<i64: 0, 0>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'low', 'high' and 'interior' must give a size >= 0 for each dimension
  %y = nn.pad %x {low = array<i64: 0>, high = array<i64: 0, 0>, interior = array<i64: 0, 0>, value = 0.0 : f32} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'starts', 'sizes' and 'steps' must name each dimension
  %y = nn.slice %x {starts = array<i64: 0>, sizes = array<i64: 1, 1>, steps = array<i64: 1, 1>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: the slice leaves tensor<2x3xf32>
  %y = nn.slice %x {starts = array<i64: 0, 1>, sizes = array<i64: 2, 2>, steps = array<i64: 1, 2>} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: nothing to concatenate
  %y = "nn.concat"() <{axis = 0 : i64}> : () -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: no dimension 2 in tensor<2x3xf32>
  %y = nn.concat %x {axis = 2 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %z: tensor<3x3xf32>) {
  // CHECK: shapes {{.}}[2, 3], [3, 3]] differ outside dimension 1
  %y = nn.concat %x, %z {axis = 1 : i64} : (tensor<2x3xf32>, tensor<3x3xf32>) -> tensor<5x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3x1xf32>, %i: tensor<2xi32>) {
  // CHECK: the table must be a matrix
  %y = nn.gather %x, %i : (tensor<2x3x1xf32>, tensor<2xi32>) -> tensor<2x3x1xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %i: tensor<2xf32>) {
  // CHECK: indices must be i32
  %y = nn.gather %x, %i : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %i: tensor<3xi32>) {
  // CHECK: there must be one index for each row
  %y = nn.scatter_add %x, %i {rows = 4 : i64} : (tensor<2x3xf32>, tensor<3xi32>) -> tensor<4x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %i: tensor<3xi32>) {
  // CHECK: x must hold a row of tensor<2x3xf32> for each index
  %y = nn.add_rows %x, %x, %i : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %i: tensor<2xf32>) {
  // CHECK: indices must be i32
  %y = nn.add_rows %x, %x, %i : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %g: tensor<2xf32>) {
  // CHECK: there must be one value for each element of a row
  %y = nn.rms_norm %x, %g {epsilon = 1.0 : f32} : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %g: tensor<3xf32>, %h: tensor<2xf32>) {
  // CHECK: there must be one value for each element of a row
  %y = nn.layer_norm %x, %g, %h {epsilon = 1.0 : f32} : (tensor<2x3xf32>, tensor<3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x1xf32>) {
  // CHECK: labels must be integers
  %y = nn.one_hot %x {depth = 2 : i64} : (tensor<2x1xf32>) -> tensor<2x2xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xi32>) {
  // CHECK: the last size of tensor<2x3xi32> must be 1
  %y = nn.one_hot %x {depth = 2 : i64} : (tensor<2x3xi32>) -> tensor<2x2xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x1xi32>) {
  // CHECK: depth is 1, must be at least 2
  %y = nn.one_hot %x {depth = 1 : i64} : (tensor<2x1xi32>) -> tensor<2x1xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %l: tensor<3xi32>) {
  // CHECK: logits must be [N, C], labels [N]
  %y = nn.count_correct %x, %l : (tensor<2x3xf32>, tensor<3xi32>) -> tensor<i32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %l: tensor<2xf32>) {
  // CHECK: labels must be i32
  %y = nn.count_correct %x, %l : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<i32>
  func.return
}

// -----

func.func @f() {
  // CHECK: 'nn.constant' must produce tensor<2xf32>, not tensor<3xf32>
  %y = nn.constant {value = 1.0 : f32, shape = array<i64: 2>} : tensor<3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: no dimension 2 in tensor<2x3xf32>
  %y = nn.softmax %x {axis = 2 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<3xf32>) {
  // CHECK: the input must have rank >= 2, channels last
  %y, %m, %v = nn.batch_norm_train %x, %x, %x {epsilon = 0.001 : f32} : (tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<3xf32>, tensor<3xf32>, tensor<3xf32>)
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %g: tensor<2xf32>) {
  // CHECK: expected 3 values per channel, got tensor<2xf32>
  %y = nn.batch_norm %x, %g, %g, %g, %g {epsilon = 0.001 : f32, momentum = 0.1 : f32, training = false} : (tensor<2x3xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'rate' must be in [0, 1)
  %y = nn.dropout %x {rate = 1.0 : f32, seed = 0 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %c: tensor<f32>) {
  // CHECK: the counter must be an i32 scalar
  %y = nn.random_mask %x, %c {rate = 0.5 : f32, seed = 0 : i64} : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xi1>
  func.return
}

// -----

func.func @f(%x: tensor<3xf32>, %l: tensor<3xi32>) {
  // CHECK: logits must be [N, C], got tensor<3xf32>
  %y = nn.cross_entropy %x, %l : (tensor<3xf32>, tensor<3xi32>) -> tensor<f32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %l: tensor<3xi32>) {
  // CHECK: target must be tensor<2xi32> or tensor<2x3xf32>, got tensor<3xi32>
  %y = nn.cross_entropy %x, %l : (tensor<2x3xf32>, tensor<3xi32>) -> tensor<f32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %t: tensor<3xf32>) {
  // CHECK: target tensor<3xf32> must be like tensor<2x3xf32>
  %y = nn.mse %x, %t : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<f32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: the block arguments must have the types of the operands
  %y = nn.fused(%x) : (tensor<2x3xf32>) -> (tensor<2x3xf32>) {
  ^bb0(%a: tensor<3xf32>):
    nn.yield %a : tensor<3xf32>
  }
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: nn.yield must yield values of the result types
  %y = nn.fused(%x) : (tensor<2x3xf32>) -> (tensor<2x3xf32>) {
  ^bb0(%a: tensor<2x3xf32>):
    nn.yield
  }
  func.return
}

// -----

func.func @f() {
  // CHECK: 'update' must be a box inside [2, 3]
  %w = train.parameter "w" {sha256 = "00", update = array<i64: 2, 4>} : tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: the target must be the value of a train.parameter or train.state
  train.assign %x, %x : tensor<2x3xf32>, tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%z: tensor<3x3xf32>) {
  // CHECK: tensor<3x3xf32> is no leading box of tensor<2x3xf32>
  %w = train.parameter "w" {sha256 = "00"} : tensor<2x3xf32>
  train.assign %w, %z : tensor<2x3xf32>, tensor<3x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %lr: tensor<f32>) {
  // CHECK: only a train.parameter is updated
  %s = train.state "s" {init = 0.0 : f32} : tensor<2x3xf32>
  train.sgd %s, %x, %lr {momentum = 0.0 : f32, weight_decay = 0.0 : f32, nesterov = false} : tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %lr: tensor<1xf32>) {
  // CHECK: the learning rate must be a tensor<f32>
  %w = train.parameter "w" {sha256 = "00"} : tensor<2x3xf32>
  train.sgd %w, %x, %lr {momentum = 0.0 : f32, weight_decay = 0.0 : f32, nesterov = false} : tensor<2x3xf32>, tensor<2x3xf32>, tensor<1xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %lr: tensor<f32>) {
  // CHECK: optimizer state must be train.state
  %w = train.parameter "w" {sha256 = "00"} : tensor<2x3xf32>
  train.sgd %w, %x, %lr, %w {momentum = 0.0 : f32, weight_decay = 0.0 : f32, nesterov = false} : tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>, tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>, %lr: tensor<f32>) {
  // CHECK: beta powers must be like lr
  %w = train.parameter "w" {sha256 = "00"} : tensor<2x3xf32>
  %s = train.state "s" {init = 0.0 : f32} : tensor<2x3xf32>
  train.adam %w, %x, %lr, %s, %s, %s, %s {beta1 = 0.9 : f32, beta2 = 0.99 : f32, epsilon = 0.001 : f32, weight_decay = 0.0 : f32, decoupled = false} : tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: results must have the types of the gradients
  %y = train.clip_by_norm %x {max_norm = 1.0 : f32} : (tensor<2x3xf32>) -> (tensor<3xf32>)
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'nn.relu' uses a value before it is defined
  %y = nn.relu %y : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2x3xf32>) {
  // CHECK: 'nn.relu' uses 'w' after 'train.assign' wrote it
  %w = train.parameter "w" {sha256 = "00"} : tensor<2x3xf32>
  train.assign %w, %x : tensor<2x3xf32>, tensor<2x3xf32>
  %y = nn.relu %w : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2xf32>) {
  // CHECK: expected a quantised element type, got f32
  %y = nn.codes %x : (tensor<2xf32>) -> tensor<2xi8>
  func.return
}

// -----

func.func @f(%x: tensor<2xi32>) {
  // CHECK: the operand must be f32, got tensor<2xi32>
  %y, %z = nn.quantize %x {to = !nn.quantized<i8, 0.5>} : (tensor<2xi32>) -> (tensor<2x!nn.quantized<i8, 0.5>>, tensor<2xi1>)
  func.return
}

// -----

func.func @f(%x: tensor<2xi32>) {
  // CHECK: codes of tensor<2x!nn.quantized<i8, 0.5>> must be i8
  %y = nn.from_codes %x {to = !nn.quantized<i8, 0.5>} : (tensor<2xi32>) -> tensor<2x!nn.quantized<i8, 0.5>>
  func.return
}

// -----

func.func @f(%x: tensor<3xi8>) {
  // CHECK: 2 scales along axis 0 do not fit the shape
  %y = nn.from_codes %x {to = !nn.quantized<i8, [0.5, 1.0], axis 0>} : (tensor<3xi8>) -> tensor<3x!nn.quantized<i8, [0.5, 1.0], axis 0>>
  func.return
}

// -----

func.func @f(%x: tensor<1x2x2x2x!nn.quantized<i8, 0.5>>, %w: tensor<2x1x1x2x!nn.quantized<i8, 0.5>>, %b: tensor<1x2x2x2x!nn.quantized<i8, 0.5>>) {
  // CHECK: the bias is
  %y, %z = nn.quantized_conv2d %x, %w, %b {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, to = !nn.quantized<i8, 0.5>} : (tensor<1x2x2x2x!nn.quantized<i8, 0.5>>, tensor<2x1x1x2x!nn.quantized<i8, 0.5>>, tensor<1x2x2x2x!nn.quantized<i8, 0.5>>) -> (tensor<1x2x2x2x!nn.quantized<i8, 0.5>>, tensor<1x2x2x2xi1>)
  func.return
}

// -----

func.func @f(%x: tensor<1x2x2x2x!nn.quantized<i8, 0.5>>, %w: tensor<2x1x1x2x!nn.quantized<i8, 0.5>>, %b: tensor<3x!nn.quantized<i32, 0.25>>) {
  // CHECK: does not fit
  %y, %z = nn.quantized_conv2d %x, %w, %b {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64, to = !nn.quantized<i8, 0.5>} : (tensor<1x2x2x2x!nn.quantized<i8, 0.5>>, tensor<2x1x1x2x!nn.quantized<i8, 0.5>>, tensor<3x!nn.quantized<i32, 0.25>>) -> (tensor<1x2x2x2x!nn.quantized<i8, 0.5>>, tensor<1x2x2x2xi1>)
  func.return
}

// -----

func.func @f(%x: tensor<2x!nn.quantized<i32, 0.25>>) {
  // CHECK: the operand must have i8 codes
  %y = nn.quantized_mean %x {axes = array<i64: 0>} : (tensor<2x!nn.quantized<i32, 0.25>>) -> tensor<1x!nn.quantized<i32, 0.25>>
  func.return
}

// -----

func.func @f(%x: tensor<1x2x2x2x!nn.quantized<i8, 0.5>>) {
  // CHECK: no axes
  %y = nn.quantized_mean %x {axes = array<i64: 4>} : (tensor<1x2x2x2x!nn.quantized<i8, 0.5>>) -> tensor<1x2x2x2x!nn.quantized<i8, 0.5>>
  func.return
}

// -----

func.func @f(%x: tensor<2xi8>, %y: tensor<2xi32>) {
  // CHECK: operands must be i32
  %z = nn.rescale %x, %y {shift = 33 : i64, zero_point = 0 : i64} : (tensor<2xi8>, tensor<2xi32>) -> tensor<2xi32>
  func.return
}

// -----

func.func @f(%x: tensor<2xi32>, %y: tensor<2xi32>) {
  // CHECK: 'shift' must be in
  %z = nn.rescale %x, %y {shift = 63 : i64, zero_point = 0 : i64} : (tensor<2xi32>, tensor<2xi32>) -> tensor<2xi32>
  func.return
}

// -----

func.func @f(%x: tensor<2xf32>, %n: tensor<2xi32>) {
  // CHECK: the counter must be one i32
  %z = nn.random_uniform %x, %n {seed = 1 : i64} : (tensor<2xf32>, tensor<2xi32>) -> tensor<2xf32>
  func.return
}

// -----

func.func @f(%x: tensor<2xf32>) {
  // CHECK: there is no conversion to i1
  %z = nn.cast %x {to = i1} : (tensor<2xf32>) -> tensor<2xi1>
  func.return
}

// -----

plan.program "p" arena 0 : i64 bound 0 : i64 {
  // CHECK: unknown space 'heap'
  %v = plan.view "heap" {offset = 0 : i64} : memref<2xf32>
}

// -----

plan.program "p" arena 0 : i64 bound 0 : i64 {
  // CHECK: 'offset' must be >= 0
  %v = plan.view "arena" {offset = -4 : i64} : memref<2xf32>
}

// -----

plan.program "p" arena 0 : i64 bound 0 : i64 {
  // CHECK: 'index' belongs to inputs and outputs, and only to them
  %v = plan.view "arena" {offset = 0 : i64, index = 0 : i64} : memref<2xf32>
}

// -----

plan.program "p" arena 0 : i64 bound 0 : i64 {
  // CHECK: 'index' belongs to inputs and outputs, and only to them
  %v = plan.view "input" {offset = 0 : i64} : memref<2xf32>
}

// -----

plan.program "p" arena 0 : i64 bound 0 : i64 {
  // CHECK: 'reads' and 'writes' exceed the arguments
  %v = plan.view "arena" {offset = 0 : i64} : memref<2xf32>
  plan.call @k(%v) {reads = 1 : i64, writes = 1 : i64} : memref<2xf32>
}

// -----

plan.program "p" arena 0 : i64 bound 0 : i64 {
  // CHECK: 'in_place' names wrong arguments
  %v = plan.view "arena" {offset = 0 : i64} : memref<2xf32>
  plan.call @k(%v, %v) {reads = 1 : i64, writes = 1 : i64, in_place = array<i64: 1, 1>} : memref<2xf32>, memref<2xf32>
}

// -----

// CHECK: the region 'sram' of the arena must start at 32
plan.program "p" arena 96 : i64 bound 0 : i64 attributes {arena_regions = {dtcm = array<i64: 0, 32>, sram = array<i64: 16, 96>}} {
  %v = plan.view "state" {offset = 0 : i64} : memref<2xf32>
}

// -----

// CHECK: the regions of the arena must cover it
plan.program "p" arena 96 : i64 bound 0 : i64 attributes {arena_regions = {dtcm = array<i64: 0, 32>}} {
  %v = plan.view "state" {offset = 0 : i64} : memref<2xf32>
}

// -----

// CHECK: the region 'dtcm' must have a start and an end
plan.program "p" arena 96 : i64 bound 0 : i64 attributes {arena_regions = {dtcm = array<i64: 0>}} {
  %v = plan.view "state" {offset = 0 : i64} : memref<2xf32>
}
