// Every operation of nn, train and plan: print, parse and print again.
// RUN: niwaki-opt %s | niwaki-opt | filecheck %s

// CHECK-LABEL: func.func @elementwise(%x: tensor<2x3xf32>, %y: tensor<3xf32>, %m: tensor<2x3xi1>, %n: tensor<4xi32>) {
func.func @elementwise(%x: tensor<2x3xf32>, %y: tensor<3xf32>, %m: tensor<2x3xi1>, %n: tensor<4xi32>) {
  // CHECK: %add = nn.add %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %add = nn.add %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %sub = nn.sub %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %sub = nn.sub %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %mul = nn.mul %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %mul = nn.mul %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %div = nn.div %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %div = nn.div %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %max = nn.max %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %max = nn.max %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %min = nn.min %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %min = nn.min %x, %y : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %neg = nn.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %neg = nn.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %abs = nn.abs %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %abs = nn.abs %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %exp = nn.exp %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %exp = nn.exp %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %log = nn.log %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %log = nn.log %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %sqrt = nn.sqrt %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %sqrt = nn.sqrt %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %rsqrt = nn.rsqrt %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %rsqrt = nn.rsqrt %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %erf = nn.erf %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %erf = nn.erf %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %relu = nn.relu %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %relu = nn.relu %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %relu6 = nn.relu6 %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %relu6 = nn.relu6 %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %leaky_relu = nn.leaky_relu %x {slope = 1.250000e-01 : f32} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %leaky_relu = nn.leaky_relu %x {slope = 1.250000e-01 : f32} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %sigmoid = nn.sigmoid %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %sigmoid = nn.sigmoid %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %tanh = nn.tanh %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %tanh = nn.tanh %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %hard_sigmoid = nn.hard_sigmoid %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %hard_sigmoid = nn.hard_sigmoid %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %hard_swish = nn.hard_swish %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %hard_swish = nn.hard_swish %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %silu = nn.silu %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %silu = nn.silu %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %softplus = nn.softplus %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %softplus = nn.softplus %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %gelu = nn.gelu %x {approximate = "tanh"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %gelu = nn.gelu %x {approximate = "tanh"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %compare = nn.compare %x, %y {predicate = "gt"} : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xi1>
  %compare = nn.compare %x, %y {predicate = "gt"} : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xi1>
  // CHECK: %and = nn.and %m, %m : (tensor<2x3xi1>, tensor<2x3xi1>) -> tensor<2x3xi1>
  %and = nn.and %m, %m : (tensor<2x3xi1>, tensor<2x3xi1>) -> tensor<2x3xi1>
  // CHECK: %select = nn.select %m, %x, %y : (tensor<2x3xi1>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %select = nn.select %m, %x, %y : (tensor<2x3xi1>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %cast = nn.cast %n {to = f32} : (tensor<4xi32>) -> tensor<4xf32>
  %cast = nn.cast %n {to = f32} : (tensor<4xi32>) -> tensor<4xf32>
  // CHECK: %narrow = nn.narrow %x {to = bf16} : (tensor<2x3xf32>) -> tensor<2x3xbf16>
  %narrow = nn.narrow %x {to = bf16} : (tensor<2x3xf32>) -> tensor<2x3xbf16>
  // CHECK: %widened = nn.cast %narrow {to = f32} : (tensor<2x3xbf16>) -> tensor<2x3xf32>
  %widened = nn.cast %narrow {to = f32} : (tensor<2x3xbf16>) -> tensor<2x3xf32>
  // CHECK: func.return
  func.return
}

// CHECK-LABEL: func.func @contractions(%x: tensor<2x7x8x4xf32>, %w: tensor<6x3x2x2xf32>, %dy: tensor<2x4x7x6xf32>, %p: tensor<2x3xf32>, %q: tensor<5x3xf32>) {
func.func @contractions(%x: tensor<2x7x8x4xf32>, %w: tensor<6x3x2x2xf32>, %dy: tensor<2x4x7x6xf32>, %p: tensor<2x3xf32>, %q: tensor<5x3xf32>) {
  // CHECK: %conv2d = nn.conv2d %x, %w {strides = array<i64: 2, 1>, padding = array<i64: 1, 0, 1, 1>, dilation = array<i64: 1, 2>, groups = 2 : i64} : (tensor<2x7x8x4xf32>, tensor<6x3x2x2xf32>) -> tensor<2x4x7x6xf32>
  %conv2d = nn.conv2d %x, %w {strides = array<i64: 2, 1>, padding = array<i64: 1, 0, 1, 1>, dilation = array<i64: 1, 2>, groups = 2 : i64} : (tensor<2x7x8x4xf32>, tensor<6x3x2x2xf32>) -> tensor<2x4x7x6xf32>
  // CHECK: %conv2d_dx = nn.conv2d_dx %dy, %w {strides = array<i64: 2, 1>, padding = array<i64: 1, 0, 1, 1>, dilation = array<i64: 1, 2>, groups = 2 : i64, input_size = array<i64: 7, 8>} : (tensor<2x4x7x6xf32>, tensor<6x3x2x2xf32>) -> tensor<2x7x8x4xf32>
  %conv2d_dx = nn.conv2d_dx %dy, %w {strides = array<i64: 2, 1>, padding = array<i64: 1, 0, 1, 1>, dilation = array<i64: 1, 2>, groups = 2 : i64, input_size = array<i64: 7, 8>} : (tensor<2x4x7x6xf32>, tensor<6x3x2x2xf32>) -> tensor<2x7x8x4xf32>
  // CHECK: %conv2d_dw = nn.conv2d_dw %x, %dy {strides = array<i64: 2, 1>, padding = array<i64: 1, 0, 1, 1>, dilation = array<i64: 1, 2>, groups = 2 : i64, kernel_size = array<i64: 3, 2>} : (tensor<2x7x8x4xf32>, tensor<2x4x7x6xf32>) -> tensor<6x3x2x2xf32>
  %conv2d_dw = nn.conv2d_dw %x, %dy {strides = array<i64: 2, 1>, padding = array<i64: 1, 0, 1, 1>, dilation = array<i64: 1, 2>, groups = 2 : i64, kernel_size = array<i64: 3, 2>} : (tensor<2x7x8x4xf32>, tensor<2x4x7x6xf32>) -> tensor<6x3x2x2xf32>
  // CHECK: %matmul = nn.matmul %p, %q {transpose_a = false, transpose_b = true} : (tensor<2x3xf32>, tensor<5x3xf32>) -> tensor<2x5xf32>
  %matmul = nn.matmul %p, %q {transpose_a = false, transpose_b = true} : (tensor<2x3xf32>, tensor<5x3xf32>) -> tensor<2x5xf32>
  // CHECK: %matmul_1 = nn.matmul %x, %x {transpose_a = false, transpose_b = true} : (tensor<2x7x8x4xf32>, tensor<2x7x8x4xf32>) -> tensor<2x7x8x8xf32>
  %matmul_1 = nn.matmul %x, %x {transpose_a = false, transpose_b = true} : (tensor<2x7x8x4xf32>, tensor<2x7x8x4xf32>) -> tensor<2x7x8x8xf32>
  // CHECK: func.return
  func.return
}

// CHECK-LABEL: func.func @pooling(%x: tensor<1x5x5x2xf32>, %dy: tensor<1x3x3x2xf32>, %index: tensor<1x3x3x2xi8>) {
func.func @pooling(%x: tensor<1x5x5x2xf32>, %dy: tensor<1x3x3x2xf32>, %index: tensor<1x3x3x2xi8>) {
  // CHECK: %max_pool2d, %max_pool2d_1 = nn.max_pool2d %x {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 1, 1>} : (tensor<1x5x5x2xf32>) -> (tensor<1x3x3x2xf32>, tensor<1x3x3x2xi8>)
  %max_pool2d, %max_pool2d_1 = nn.max_pool2d %x {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 1, 1>} : (tensor<1x5x5x2xf32>) -> (tensor<1x3x3x2xf32>, tensor<1x3x3x2xi8>)
  // CHECK: %max_pool2d_grad = nn.max_pool2d_grad %dy, %index {input_size = array<i64: 5, 5>, kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 1, 1>} : (tensor<1x3x3x2xf32>, tensor<1x3x3x2xi8>) -> tensor<1x5x5x2xf32>
  %max_pool2d_grad = nn.max_pool2d_grad %dy, %index {input_size = array<i64: 5, 5>, kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 1, 1>} : (tensor<1x3x3x2xf32>, tensor<1x3x3x2xi8>) -> tensor<1x5x5x2xf32>
  // CHECK: %avg_pool2d = nn.avg_pool2d %x {count_include_pad = false, kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 1, 1>} : (tensor<1x5x5x2xf32>) -> tensor<1x3x3x2xf32>
  %avg_pool2d = nn.avg_pool2d %x {count_include_pad = false, kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 1, 1>} : (tensor<1x5x5x2xf32>) -> tensor<1x3x3x2xf32>
  // CHECK: %avg_pool2d_grad = nn.avg_pool2d_grad %dy {input_size = array<i64: 5, 5>, count_include_pad = true, kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 1, 1>} : (tensor<1x3x3x2xf32>) -> tensor<1x5x5x2xf32>
  %avg_pool2d_grad = nn.avg_pool2d_grad %dy {input_size = array<i64: 5, 5>, count_include_pad = true, kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 1, 1>} : (tensor<1x3x3x2xf32>) -> tensor<1x5x5x2xf32>
  // CHECK: func.return
  func.return
}

// CHECK-LABEL: func.func @shapes(%x: tensor<2x3xf32>, %l: tensor<2xi32>, %column: tensor<2x1xi32>, %z: tensor<f32>) {
func.func @shapes(%x: tensor<2x3xf32>, %l: tensor<2xi32>, %column: tensor<2x1xi32>, %z: tensor<f32>) {
  // CHECK: %constant = nn.constant {value = 5.000000e-01 : f32, shape = array<i64>} : tensor<f32>
  %constant = nn.constant {value = 5.000000e-01 : f32, shape = array<i64>} : tensor<f32>
  // CHECK: %constant_1 = nn.constant {value = 3 : i32, shape = array<i64: 2, 2>} : tensor<2x2xi32>
  %constant_1 = nn.constant {value = 3 : i32, shape = array<i64: 2, 2>} : tensor<2x2xi32>
  // CHECK: %reduce_sum = nn.reduce_sum %x {axes = array<i64: 0>} : (tensor<2x3xf32>) -> tensor<1x3xf32>
  %reduce_sum = nn.reduce_sum %x {axes = array<i64: 0>} : (tensor<2x3xf32>) -> tensor<1x3xf32>
  // CHECK: %reduce_mean = nn.reduce_mean %x {axes = array<i64: 0, 1>} : (tensor<2x3xf32>) -> tensor<1x1xf32>
  %reduce_mean = nn.reduce_mean %x {axes = array<i64: 0, 1>} : (tensor<2x3xf32>) -> tensor<1x1xf32>
  // CHECK: %reduce_max = nn.reduce_max %x {axes = array<i64: 1>} : (tensor<2x3xf32>) -> tensor<2x1xf32>
  %reduce_max = nn.reduce_max %x {axes = array<i64: 1>} : (tensor<2x3xf32>) -> tensor<2x1xf32>
  // CHECK: %reshape = nn.reshape %x {shape = array<i64: 6>} : (tensor<2x3xf32>) -> tensor<6xf32>
  %reshape = nn.reshape %x {shape = array<i64: 6>} : (tensor<2x3xf32>) -> tensor<6xf32>
  // CHECK: %broadcast = nn.broadcast %x {shape = array<i64: 4, 2, 3>} : (tensor<2x3xf32>) -> tensor<4x2x3xf32>
  %broadcast = nn.broadcast %x {shape = array<i64: 4, 2, 3>} : (tensor<2x3xf32>) -> tensor<4x2x3xf32>
  // CHECK: %transpose = nn.transpose %x {permutation = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %transpose = nn.transpose %x {permutation = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  // CHECK: %pad = nn.pad %x {low = array<i64: 1, 0>, high = array<i64: 0, 2>, interior = array<i64: 0, 1>, value = -1.000000e+00 : f32} : (tensor<2x3xf32>) -> tensor<3x7xf32>
  %pad = nn.pad %x {low = array<i64: 1, 0>, high = array<i64: 0, 2>, interior = array<i64: 0, 1>, value = -1.000000e+00 : f32} : (tensor<2x3xf32>) -> tensor<3x7xf32>
  // CHECK: %slice = nn.slice %x {starts = array<i64: 0, 1>, sizes = array<i64: 2, 1>, steps = array<i64: 1, 2>} : (tensor<2x3xf32>) -> tensor<2x1xf32>
  %slice = nn.slice %x {starts = array<i64: 0, 1>, sizes = array<i64: 2, 1>, steps = array<i64: 1, 2>} : (tensor<2x3xf32>) -> tensor<2x1xf32>
  // CHECK: %concat = nn.concat %x, %x {axis = 0 : i64} : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<4x3xf32>
  %concat = nn.concat %x, %x {axis = 0 : i64} : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<4x3xf32>
  // CHECK: %one_hot = nn.one_hot %column {depth = 5 : i64} : (tensor<2x1xi32>) -> tensor<2x5xf32>
  %one_hot = nn.one_hot %column {depth = 5 : i64} : (tensor<2x1xi32>) -> tensor<2x5xf32>
  // CHECK: %one_hot_1 = nn.one_hot %column {depth = 5 : i64, to = bf16} : (tensor<2x1xi32>) -> tensor<2x5xbf16>
  %one_hot_1 = nn.one_hot %column {depth = 5 : i64, to = bf16} : (tensor<2x1xi32>) -> tensor<2x5xbf16>
  // CHECK: %gather = nn.gather %x, %l : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  %gather = nn.gather %x, %l : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  // CHECK: %add_rows = nn.add_rows %x, %x, %l : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  %add_rows = nn.add_rows %x, %x, %l : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  // CHECK: %scatter_add = nn.scatter_add %x, %l {rows = 7 : i64} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<7x3xf32>
  %scatter_add = nn.scatter_add %x, %l {rows = 7 : i64} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<7x3xf32>
  // CHECK: %count_correct = nn.count_correct %x, %l : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<i32>
  %count_correct = nn.count_correct %x, %l : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<i32>
  // CHECK: func.return
  func.return
}

// CHECK-LABEL: func.func @composites(%x: tensor<2x3xf32>, %l: tensor<2xi32>, %g: tensor<3xf32>, %c: tensor<i32>, %target: tensor<2x3xf32>) {
func.func @composites(%x: tensor<2x3xf32>, %l: tensor<2xi32>, %g: tensor<3xf32>, %c: tensor<i32>, %target: tensor<2x3xf32>) {
  // CHECK: %softmax = nn.softmax %x {axis = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %softmax = nn.softmax %x {axis = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %log_softmax = nn.log_softmax %x {axis = 0 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %log_softmax = nn.log_softmax %x {axis = 0 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %batch_norm = nn.batch_norm %x, %g, %g, %g, %g {epsilon = 1.000000e-05 : f32, momentum = 1.000000e-01 : f32, training = true} : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %batch_norm = nn.batch_norm %x, %g, %g, %g, %g {epsilon = 1.000000e-05 : f32, momentum = 1.000000e-01 : f32, training = true} : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %batch_norm_train, %batch_norm_train_1, %batch_norm_train_2 = nn.batch_norm_train %x, %g, %g {epsilon = 1.000000e-03 : f32} : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %batch_norm_train, %batch_norm_train_1, %batch_norm_train_2 = nn.batch_norm_train %x, %g, %g {epsilon = 1.000000e-03 : f32} : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>)
  // CHECK: %layer_norm = nn.layer_norm %x, %g, %g {epsilon = 1.000000e-05 : f32} : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %layer_norm = nn.layer_norm %x, %g, %g {epsilon = 1.000000e-05 : f32} : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %rms_norm = nn.rms_norm %x, %g {epsilon = 1.000000e-05 : f32} : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %rms_norm = nn.rms_norm %x, %g {epsilon = 1.000000e-05 : f32} : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK: %dropout = nn.dropout %x {rate = 5.000000e-01 : f32, seed = 7 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %dropout = nn.dropout %x {rate = 5.000000e-01 : f32, seed = 7 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK: %random_mask = nn.random_mask %x, %c {rate = 5.000000e-01 : f32, seed = 7 : i64} : (tensor<2x3xf32>, tensor<i32>) -> tensor<2x3xi1>
  %random_mask = nn.random_mask %x, %c {rate = 5.000000e-01 : f32, seed = 7 : i64} : (tensor<2x3xf32>, tensor<i32>) -> tensor<2x3xi1>
  // CHECK: %cross_entropy = nn.cross_entropy %x, %l : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<f32>
  %cross_entropy = nn.cross_entropy %x, %l : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<f32>
  // CHECK: %cross_entropy_1 = nn.cross_entropy %x, %target : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<f32>
  %cross_entropy_1 = nn.cross_entropy %x, %target : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<f32>
  // CHECK: %mse = nn.mse %x, %target : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<f32>
  %mse = nn.mse %x, %target : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<f32>
  // CHECK: %bce_with_logits = nn.bce_with_logits %x, %target : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<f32>
  %bce_with_logits = nn.bce_with_logits %x, %target : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<f32>
  // CHECK: func.return
  func.return
}

// CHECK-LABEL: func.func @fused(%x: tensor<2x3xf32>, %y: tensor<3xf32>) {
func.func @fused(%x: tensor<2x3xf32>, %y: tensor<3xf32>) {
  // CHECK: %fused, %fused_1 = nn.fused(%x, %y) : (tensor<2x3xf32>, tensor<3xf32>) -> (tensor<2x3xf32>, tensor<2x3xf32>) {
  %fused, %fused_1 = nn.fused(%x, %y) : (tensor<2x3xf32>, tensor<3xf32>) -> (tensor<2x3xf32>, tensor<2x3xf32>) {
  // CHECK: ^bb0(%a: tensor<2x3xf32>, %b: tensor<3xf32>):
  ^bb0(%a: tensor<2x3xf32>, %b: tensor<3xf32>):
    // CHECK: %sum = nn.add %a, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
    %sum = nn.add %a, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
    // CHECK: %relu = nn.relu %sum : (tensor<2x3xf32>) -> tensor<2x3xf32>
    %relu = nn.relu %sum : (tensor<2x3xf32>) -> tensor<2x3xf32>
    // CHECK: nn.yield %relu, %sum : tensor<2x3xf32>, tensor<2x3xf32>
    nn.yield %relu, %sum : tensor<2x3xf32>, tensor<2x3xf32>
  }
  // CHECK: func.return
  func.return
}

// CHECK-LABEL: func.func @updates(%g: tensor<2x3xf32>, %lr: tensor<f32>) {
func.func @updates(%g: tensor<2x3xf32>, %lr: tensor<f32>) {
  // CHECK: %w = train.parameter "conv.weight" {sha256 = "0123456789abcdef", update = array<i64: 2, 3>, source_permutation = array<i64: 1, 0>} : tensor<4x3xf32>
  %w = train.parameter "conv.weight" {sha256 = "0123456789abcdef", update = array<i64: 2, 3>, source_permutation = array<i64: 1, 0>} : tensor<4x3xf32>
  // CHECK: %v = train.state "velocity" {init = 0.000000e+00 : f32} : tensor<2x3xf32>
  %v = train.state "velocity" {init = 0.000000e+00 : f32} : tensor<2x3xf32>
  // CHECK: %p = train.parameter "fc.weight" {sha256 = "0123456789abcdef", fixed} : tensor<2x3xf32>
  %p = train.parameter "fc.weight" {sha256 = "0123456789abcdef", fixed} : tensor<2x3xf32>
  // CHECK: %m = train.state "mean" {init = 0.000000e+00 : f32} : tensor<2x3xf32>
  %m = train.state "mean" {init = 0.000000e+00 : f32} : tensor<2x3xf32>
  // CHECK: %s = train.state "variance" {init = 0.000000e+00 : f32} : tensor<2x3xf32>
  %s = train.state "variance" {init = 0.000000e+00 : f32} : tensor<2x3xf32>
  // CHECK: %p1 = train.state "power1" {init = 5.000000e-01 : f32} : tensor<f32>
  %p1 = train.state "power1" {init = 5.000000e-01 : f32} : tensor<f32>
  // CHECK: %p2 = train.state "power2" {init = 7.500000e-01 : f32} : tensor<f32>
  %p2 = train.state "power2" {init = 7.500000e-01 : f32} : tensor<f32>
  // CHECK: %n = train.state "step" {init = 0 : i32} : tensor<i32>
  %n = train.state "step" {init = 0 : i32} : tensor<i32>
  // CHECK: %clip_by_norm, %clip_by_norm_1 = train.clip_by_norm %g, %lr {max_norm = 1.000000e+00 : f32} : (tensor<2x3xf32>, tensor<f32>) -> (tensor<2x3xf32>, tensor<f32>)
  %clip_by_norm, %clip_by_norm_1 = train.clip_by_norm %g, %lr {max_norm = 1.000000e+00 : f32} : (tensor<2x3xf32>, tensor<f32>) -> (tensor<2x3xf32>, tensor<f32>)
  // CHECK: train.sgd %w, %g, %lr, %v {momentum = 5.000000e-01 : f32, weight_decay = 0.000000e+00 : f32, nesterov = true} : tensor<4x3xf32>, tensor<2x3xf32>, tensor<f32>, tensor<2x3xf32>
  train.sgd %w, %g, %lr, %v {momentum = 5.000000e-01 : f32, weight_decay = 0.000000e+00 : f32, nesterov = true} : tensor<4x3xf32>, tensor<2x3xf32>, tensor<f32>, tensor<2x3xf32>
  // CHECK: %parameter = train.parameter "fc.bias" {sha256 = "0123456789abcdef"} : tensor<2x3xf32>
  %parameter = train.parameter "fc.bias" {sha256 = "0123456789abcdef"} : tensor<2x3xf32>
  // CHECK: train.sgd %parameter, %g, %lr {momentum = 0.000000e+00 : f32, weight_decay = 0.000000e+00 : f32, nesterov = false} : tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>
  train.sgd %parameter, %g, %lr {momentum = 0.000000e+00 : f32, weight_decay = 0.000000e+00 : f32, nesterov = false} : tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>
  // CHECK: train.adam %p, %g, %lr, %m, %s, %p1, %p2 {beta1 = 5.000000e-01 : f32, beta2 = 7.500000e-01 : f32, epsilon = 0.0009765625 : f32, weight_decay = 0.000000e+00 : f32, decoupled = false} : tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>, tensor<f32>
  train.adam %p, %g, %lr, %m, %s, %p1, %p2 {beta1 = 5.000000e-01 : f32, beta2 = 7.500000e-01 : f32, epsilon = 0.0009765625 : f32, weight_decay = 0.000000e+00 : f32, decoupled = false} : tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<f32>, tensor<f32>
  // CHECK: %constant = nn.constant {value = 1 : i32, shape = array<i64>} : tensor<i32>
  %constant = nn.constant {value = 1 : i32, shape = array<i64>} : tensor<i32>
  // CHECK: train.assign %n, %constant : tensor<i32>, tensor<i32>
  train.assign %n, %constant : tensor<i32>, tensor<i32>
  // CHECK: func.return
  func.return
}

// CHECK: func.func @quantized
func.func @quantized(%x : tensor<1x4x4x2xf32>, %w : tensor<2x3x3x2xi8>, %b : tensor<2xi32>, %n : tensor<i32>) {
  // CHECK: %q, %q_1 = nn.quantize %x {to = !nn.quantized<i8, 0.5, zero -3>} : (tensor<1x4x4x2xf32>) -> (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<1x4x4x2xi1>)
  %q, %q_1 = nn.quantize %x {to = !nn.quantized<i8, 0.5, zero -3>} : (tensor<1x4x4x2xf32>) -> (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<1x4x4x2xi1>)
  // CHECK: %dequantize = nn.dequantize %q : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>) -> tensor<1x4x4x2xf32>
  %dequantize = nn.dequantize %q : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>) -> tensor<1x4x4x2xf32>
  // CHECK: %codes = nn.codes %q : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>) -> tensor<1x4x4x2xi8>
  %codes = nn.codes %q : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>) -> tensor<1x4x4x2xi8>
  // CHECK: %f = nn.from_codes %w {to = !nn.quantized<i8, [0.5, 2.0], axis 0>} : (tensor<2x3x3x2xi8>) -> tensor<2x3x3x2x!nn.quantized<i8, [0.5, 2.0], axis 0>>
  %f = nn.from_codes %w {to = !nn.quantized<i8, [0.5, 2.0], axis 0>} : (tensor<2x3x3x2xi8>) -> tensor<2x3x3x2x!nn.quantized<i8, [0.5, 2.0], axis 0>>
  // CHECK: %o = nn.from_codes %b {to = !nn.quantized<i32, [0.25, 1.0], axis 0>} : (tensor<2xi32>) -> tensor<2x!nn.quantized<i32, [0.25, 1.0], axis 0>>
  %o = nn.from_codes %b {to = !nn.quantized<i32, [0.25, 1.0], axis 0>} : (tensor<2xi32>) -> tensor<2x!nn.quantized<i32, [0.25, 1.0], axis 0>>
  // CHECK: %scales = nn.scales %f : (tensor<2x3x3x2x!nn.quantized<i8, [0.5, 2.0], axis 0>>) -> tensor<2xf32>
  %scales = nn.scales %f : (tensor<2x3x3x2x!nn.quantized<i8, [0.5, 2.0], axis 0>>) -> tensor<2xf32>
  // CHECK: %y, %y_1 = nn.quantized_conv2d %q, %f, %o {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64, to = !nn.quantized<i8, 0.5, zero -3>} : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<2x3x3x2x!nn.quantized<i8, [0.5, 2.0], axis 0>>, tensor<2x!nn.quantized<i32, [0.25, 1.0], axis 0>>) -> (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<1x4x4x2xi1>)
  %y, %y_1 = nn.quantized_conv2d %q, %f, %o {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64, to = !nn.quantized<i8, 0.5, zero -3>} : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<2x3x3x2x!nn.quantized<i8, [0.5, 2.0], axis 0>>, tensor<2x!nn.quantized<i32, [0.25, 1.0], axis 0>>) -> (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<1x4x4x2xi1>)
  // CHECK: %a, %a_1 = nn.quantized_add %y, %q {to = !nn.quantized<i8, 0.5, zero -3>} : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>) -> (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<1x4x4x2xi1>)
  %a, %a_1 = nn.quantized_add %y, %q {to = !nn.quantized<i8, 0.5, zero -3>} : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>) -> (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>, tensor<1x4x4x2xi1>)
  // CHECK: %mean = nn.quantized_mean %a {axes = array<i64: 1, 2>} : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>) -> tensor<1x1x1x2x!nn.quantized<i8, 0.5, zero -3>>
  %mean = nn.quantized_mean %a {axes = array<i64: 1, 2>} : (tensor<1x4x4x2x!nn.quantized<i8, 0.5, zero -3>>) -> tensor<1x1x1x2x!nn.quantized<i8, 0.5, zero -3>>
  // CHECK: %sums = nn.integer_conv2d %codes, %w {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64, zero_point = -3 : i64} : (tensor<1x4x4x2xi8>, tensor<2x3x3x2xi8>) -> tensor<1x4x4x2xi32>
  %sums = nn.integer_conv2d %codes, %w {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64, zero_point = -3 : i64} : (tensor<1x4x4x2xi8>, tensor<2x3x3x2xi8>) -> tensor<1x4x4x2xi32>
  // CHECK: %g = nn.cast %x {to = i16} : (tensor<1x4x4x2xf32>) -> tensor<1x4x4x2xi16>
  %g = nn.cast %x {to = i16} : (tensor<1x4x4x2xf32>) -> tensor<1x4x4x2xi16>
  // CHECK: %dx = nn.integer_conv2d_dx %g, %w {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64, input_size = array<i64: 4, 4>} : (tensor<1x4x4x2xi16>, tensor<2x3x3x2xi8>) -> tensor<1x4x4x2xi32>
  %dx = nn.integer_conv2d_dx %g, %w {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64, input_size = array<i64: 4, 4>} : (tensor<1x4x4x2xi16>, tensor<2x3x3x2xi8>) -> tensor<1x4x4x2xi32>
  // CHECK: %dw = nn.integer_conv2d_dw %codes, %g {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64, kernel_size = array<i64: 3, 3>, zero_point = -3 : i64} : (tensor<1x4x4x2xi8>, tensor<1x4x4x2xi16>) -> tensor<2x3x3x2xi32>
  %dw = nn.integer_conv2d_dw %codes, %g {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilation = array<i64: 1, 1>, groups = 1 : i64, kernel_size = array<i64: 3, 3>, zero_point = -3 : i64} : (tensor<1x4x4x2xi8>, tensor<1x4x4x2xi16>) -> tensor<2x3x3x2xi32>
  // CHECK: %rescale = nn.rescale %sums, %b {shift = 33 : i64, zero_point = 4 : i64} : (tensor<1x4x4x2xi32>, tensor<2xi32>) -> tensor<1x4x4x2xi32>
  %rescale = nn.rescale %sums, %b {shift = 33 : i64, zero_point = 4 : i64} : (tensor<1x4x4x2xi32>, tensor<2xi32>) -> tensor<1x4x4x2xi32>
  // CHECK: %round = nn.round %x : (tensor<1x4x4x2xf32>) -> tensor<1x4x4x2xf32>
  %round = nn.round %x : (tensor<1x4x4x2xf32>) -> tensor<1x4x4x2xf32>
  // CHECK: %uniform = nn.random_uniform %x, %n {seed = 7 : i64} : (tensor<1x4x4x2xf32>, tensor<i32>) -> tensor<1x4x4x2xf32>
  %uniform = nn.random_uniform %x, %n {seed = 7 : i64} : (tensor<1x4x4x2xf32>, tensor<i32>) -> tensor<1x4x4x2xf32>
  // CHECK: func.return
  func.return
}

// CHECK: plan.program "train_step" arena 128 : i64 bound 64 : i64 {
plan.program "train_step" arena 128 : i64 bound 64 : i64 {
  // CHECK: %input = plan.view "input" {offset = 0 : i64, index = 0 : i64} : memref<2x3xf32>
  %input = plan.view "input" {offset = 0 : i64, index = 0 : i64} : memref<2x3xf32>
  // CHECK: %arena = plan.view "arena" {offset = 64 : i64, label = "relu"} : memref<2x3xf32>
  %arena = plan.view "arena" {offset = 64 : i64, label = "relu"} : memref<2x3xf32>
  // CHECK: %output = plan.view "output" {offset = 0 : i64, index = 1 : i64} : memref<2x3xf32>
  %output = plan.view "output" {offset = 0 : i64, index = 1 : i64} : memref<2x3xf32>
  // CHECK: %state = plan.view "state" {offset = 0 : i64} : memref<2x3xf32>
  %state = plan.view "state" {offset = 0 : i64} : memref<2x3xf32>
  // CHECK: %constants = plan.view "constants" {offset = 128 : i64} : memref<2x3xf32>
  %constants = plan.view "constants" {offset = 128 : i64} : memref<2x3xf32>
  // CHECK: plan.call @relu_6(%input, %arena, %output) {reads = 1 : i64, writes = 1 : i64, in_place = array<i64: 0, 1>} : memref<2x3xf32>, memref<2x3xf32>, memref<2x3xf32>
  plan.call @relu_6(%input, %arena, %output) {reads = 1 : i64, writes = 1 : i64, in_place = array<i64: 0, 1>} : memref<2x3xf32>, memref<2x3xf32>, memref<2x3xf32>
  // CHECK: plan.call @nothing() {reads = 0 : i64, writes = 0 : i64} :
  plan.call @nothing() {reads = 0 : i64, writes = 0 : i64} :
}

// CHECK: plan.program "infer" arena 96 : i64 bound 64 : i64 attributes {arena_regions = {dtcm = array<i64: 0, 32>, sram = array<i64: 32, 96>}, state_regions = {sram = array<i64: 0, 24>}} {
plan.program "infer" arena 96 : i64 bound 64 : i64 attributes {arena_regions = {dtcm = array<i64: 0, 32>, sram = array<i64: 32, 96>}, state_regions = {sram = array<i64: 0, 24>}} {
  // CHECK: %state = plan.view "state" {offset = 0 : i64} : memref<2x3xf32>
  %state = plan.view "state" {offset = 0 : i64} : memref<2x3xf32>
}
