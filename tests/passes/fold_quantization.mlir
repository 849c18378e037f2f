// RUN: niwaki-opt %s -p fold-quantization | filecheck %s

// Sums, clamps, moves and max-pools need no arrays; for products see test_onnx_quantized.py.
func.func @forward(%x: tensor<1x2x2x1x!nn.quantized<i8, 0.5, zero 3>>) -> tensor<1x1xf32> {
  %0 = nn.dequantize %x : (tensor<1x2x2x1x!nn.quantized<i8, 0.5, zero 3>>) -> tensor<1x2x2x1xf32>
  %1 = nn.add %0, %0 : (tensor<1x2x2x1xf32>, tensor<1x2x2x1xf32>) -> tensor<1x2x2x1xf32>
  %2 = nn.relu %1 : (tensor<1x2x2x1xf32>) -> tensor<1x2x2x1xf32>
  %3, %4 = nn.quantize %2 {to = !nn.quantized<i8, 0.25, zero -128>} : (tensor<1x2x2x1xf32>) -> (tensor<1x2x2x1x!nn.quantized<i8, 0.25, zero -128>>, tensor<1x2x2x1xi1>)
  %5 = nn.dequantize %3 : (tensor<1x2x2x1x!nn.quantized<i8, 0.25, zero -128>>) -> tensor<1x2x2x1xf32>
  %6, %7 = nn.max_pool2d %5 {kernel_size = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>} : (tensor<1x2x2x1xf32>) -> (tensor<1x1x1x1xf32>, tensor<1x1x1x1xi8>)
  %8 = nn.reshape %6 {shape = array<i64: 1, 1>} : (tensor<1x1x1x1xf32>) -> tensor<1x1xf32>
  func.return %8 : tensor<1x1xf32>
}

// CHECK:      %0, %1 = nn.quantized_add %x, %x {to = !nn.quantized<i8, 0.25, zero -128>}
// CHECK-NEXT: %2, %3 = nn.max_pool2d %0
// CHECK-NEXT: %4 = nn.reshape %2
// CHECK-NEXT: %5 = nn.dequantize %4
// CHECK-NEXT: func.return %5
