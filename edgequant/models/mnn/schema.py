"""What a .mnn file is made of: MNN's FlatBuffers schema (schema/default/*.fbs) as of MNN 3.6, with its defaults.

The only place that has MNN's numbers.  Tables and fields are called what MNN calls them, fields in snake case; a table
that is here is here with all of its fields.
"""

from __future__ import annotations

from enum import IntEnum

from edgequant.models.flat import Field

# ---- MNN.fbs


class Net:
    """The root table."""

    biz_code = Field(0, "s")
    extra_tensor_describe = Field(1, "[o]")
    extra_info = Field(2, "o")
    oplists = Field(3, "[o]")
    output_name = Field(4, "[s]")
    prefer_forward_type = Field(5, "b")
    source_type = Field(6, "b")
    tensor_name = Field(7, "[s]")
    tensor_number = Field(8, "i")
    usage = Field(9, "b")
    subgraphs = Field(10, "[o]")
    mnn_uuid = Field(11, "s")


class SubGraphProto:
    """A loop's body or condition, or a branch."""

    name = Field(0, "s")
    inputs = Field(1, "[i]")
    outputs = Field(2, "[i]")
    tensors = Field(3, "[s]")
    nodes = Field(4, "[o]")
    extra_tensor_describe = Field(5, "[o]")


class Op:
    """An operator; `main_type` is an `OpParameter`, `main` the table it says, `type` one of `OP_TYPES`."""

    input_indexes = Field(0, "[i]")
    main_type = Field(1, "B")
    main = Field(2, "o")
    name = Field(3, "s")
    output_indexes = Field(4, "[i]")
    type = Field(5, "i")
    default_dimention_format = Field(6, "b", 1)
    external_path = Field(7, "s")


class TensorDescribe:
    """What is known of one tensor of a graph, by its number."""

    blob = Field(0, "o")
    index = Field(1, "i")
    name = Field(2, "s")
    regions = Field(3, "[o]")
    quant_info = Field(4, "o")


class TensorQuantInfo:
    """A tensor's scale."""

    scale = Field(0, "f")
    zero = Field(1, "f")
    min = Field(2, "f", -128)
    max = Field(3, "f", 127)
    type = Field(4, "i")


class WhileParam:
    """A loop."""

    cond_graph = Field(0, "s")
    body_graph = Field(1, "s")
    aliases_inputs = Field(2, "[o]")
    aliases_outputs = Field(3, "[s]")
    aliases_updates = Field(4, "[o]")


# ---- ExtraInfo.fbs


class ExtraInfo:
    """What wrote the file."""

    buffer = Field(0, "[b]")
    name = Field(1, "s")
    version = Field(2, "s")


# ---- Tensor.fbs


class Blob:
    """A constant; its values are in the vector that `data_type` says, halves in `uint8s`."""

    dims = Field(0, "[i]")
    data_format = Field(1, "b")
    data_type = Field(2, "i", 1)
    uint8s = Field(3, "[B]")
    int8s = Field(4, "[b]")
    int32s = Field(5, "[i]")
    int64s = Field(6, "[q]")
    float32s = Field(7, "[f]")
    strings = Field(8, "[s]")
    external = Field(9, "[q]")


# ---- CaffeOp.fbs


class Input:
    """An input of a graph."""

    dims = Field(0, "[i]")
    dtype = Field(1, "i", 1)
    dformat = Field(2, "b", 2)


class Convolution2D:
    """The weights of a layer."""

    common = Field(0, "o")
    weight = Field(1, "[f]")
    bias = Field(2, "[f]")
    quan_parameter = Field(3, "o")
    symmetric_quan = Field(4, "o")
    sparse_parameter = Field(5, "o")
    external = Field(6, "[q]")


class Convolution2DCommon:
    """The shape of a layer."""

    pad_x = Field(0, "i")
    pad_y = Field(1, "i")
    kernel_x = Field(2, "i", 1)
    kernel_y = Field(3, "i", 1)
    stride_x = Field(4, "i", 1)
    stride_y = Field(5, "i", 1)
    dilate_x = Field(6, "i", 1)
    dilate_y = Field(7, "i", 1)
    pad_mode = Field(8, "b")
    group = Field(9, "i", 1)
    output_count = Field(10, "i")
    input_count = Field(11, "i")
    relu = Field(12, "b")
    relu6 = Field(13, "b")
    pads = Field(14, "[i]")
    out_pads = Field(15, "[i]")
    has_output_shape = Field(16, "b")


class IDSTQuan:
    """Quantized weights; `type` is an `IDSTQuanType`."""

    buffer = Field(0, "[b]")
    alpha = Field(1, "[f]")
    type = Field(2, "i")
    use_int32 = Field(3, "b")
    quant_scale = Field(4, "f")
    scale_in = Field(5, "f")
    scale_out = Field(6, "f")
    a_max_or_bits = Field(7, "i")
    a_min = Field(8, "i")
    read_type = Field(9, "i")
    has_scale_int = Field(10, "b")
    shape_int32 = Field(11, "b")
    weight_size = Field(12, "I")
    index = Field(13, "[I]")
    alpha_fp16 = Field(14, "[H]")
    scale_storage = Field(15, "b")


class Pool:
    """A pooling."""

    pad_x = Field(0, "i")
    pad_y = Field(1, "i")
    is_global = Field(2, "b")
    kernel_x = Field(3, "i")
    kernel_y = Field(4, "i")
    stride_x = Field(5, "i")
    stride_y = Field(6, "i")
    type = Field(7, "b")
    pad_type = Field(8, "b")
    data_type = Field(9, "i", 1)
    ceil_model = Field(10, "b", 1)
    pads = Field(11, "[i]")
    count_type = Field(12, "b")


class Interp:
    """A resize of images.  resize_type: 1 nearest, 2 bilinear, 3 cubic, 4 nearest, rounded."""

    width_scale = Field(0, "f")
    height_scale = Field(1, "f")
    output_width = Field(2, "i")
    output_height = Field(3, "i")
    resize_type = Field(4, "i")


# ---- TensorflowOp.fbs


class UnaryOp:
    """A function of each element."""

    op_type = Field(0, "i")
    t = Field(1, "i")
    table_int8 = Field(2, "[b]")


class CastParam:
    """A change of element type."""

    src_t = Field(0, "i")
    dst_t = Field(1, "i")


# ---- numbers


class OpParameter(IntEnum):
    """MNN.fbs: which table an operator's parameters are; those that are read here."""

    Blob = 7
    Convolution2D = 9
    Input = 21


class DataType(IntEnum):
    """Type.fbs: element types."""

    DT_INVALID = 0
    DT_FLOAT = 1
    DT_DOUBLE = 2
    DT_INT32 = 3
    DT_UINT8 = 4
    DT_INT16 = 5
    DT_INT8 = 6
    DT_STRING = 7
    DT_COMPLEX64 = 8
    DT_INT64 = 9
    DT_BOOL = 10
    DT_QINT8 = 11
    DT_QUINT8 = 12
    DT_QINT32 = 13
    DT_BFLOAT16 = 14
    DT_QINT16 = 15
    DT_QUINT16 = 16
    DT_UINT16 = 17
    DT_COMPLEX128 = 18
    DT_HALF = 19
    DT_RESOURCE = 20
    DT_VARIANT = 21


class DataFormat(IntEnum):
    """Tensor.fbs, MNN_DATA_FORMAT: order of the axes."""

    NCHW = 0
    NHWC = 1
    NC4HW4 = 2


class IDSTQuanType(IntEnum):
    """CaffeOp.fbs, a comment in IDSTQuan: how weights are kept; 0 where they are floats."""

    NONE = 0
    INT8 = 1
    SPARSE = 2
    FP16 = 3
    WEIGHT_INT8 = 4


class PoolType(IntEnum):
    """CaffeOp.fbs."""

    MAXPOOL = 0
    AVEPOOL = 1


class BinaryOp:
    """A sum, product, comparison, ...; `op_type` is a `BinaryOpOperation`."""

    op_type = Field(0, "i")
    t = Field(1, "i", 1)
    activation_type = Field(2, "i")


class BinaryOpOperation(IntEnum):
    """TensorflowOp.fbs; those that are looked for here."""

    LESS = 12


class UnaryOpOperation(IntEnum):
    """TensorflowOp.fbs; those that are looked for here."""

    SIGMOID = 29
    TANH = 30


_OP_TYPES = {
    0: """
        AbsVal QuantizedAdd ArgMax AsString InstanceNorm BatchToSpaceND Copy BinaryOp Bnll Cast Concat Const
        Convolution ConvolutionDepthwise Crop CropAndResize ImageProcess Deconvolution DeconvolutionDepthwise
        Dequantize DetectionOutput Dropout Eltwise ELU Unique Exp ExpandDims Fill Flatten Im2Col Gather GatherV2
        Im2Seq InnerProduct Input Interp Log LRN LSTM MatMul MoE NonMaxSuppression NonMaxSuppressionV2 Normalize
        Pack Padding Permute Pooling Power PReLU PriorBox Proposal QuantizedAvgPool QuantizedBiasAdd
        QuantizedConcat QuantizedDepthwiseConv2D QuantizedLogistic RasterAndInterpolate QuantizedMaxPool Texture
        RasterDiff QuantizedReshape QuantizedSoftmax QuantizeMaxMin QuantizeV2 Range Rank ReduceJoin Reduction
        ReLU ReLU6 RequantizationRange Requantize Reshape Resize RNN ROIPooling Scale Selu Seq2Out Shape Sigmoid
        Size Slice SliceTf Softmax SpaceToBatchND SpatialProduct Col2Im Segment Squeeze StridedSlice CastLike
        StringSplit StringToNumber TanH TfQuantizedConv2D Threshold Tile TopKV2 Transpose UnaryOp Unpack Where
        Moments RNNSequenceGRU BatchMatMul Unsqueeze CosineSimilarity DepthToSpace SpaceToDepth ReverseSequence
        Pooling3D Convolution3D MatrixBandPart GatherND DetectionPostProcess UnravelIndex ScatterNd OneHot
        BroadcastTo Dilation2D Interp3D
    """,
    128: """
        Raster ConvertTensor ArgMin LinSpace RandomUniform TensorArray TensorArraySize TensorArrayRead
        TensorArrayWrite TensorArrayGather TensorArrayScatter TensorArraySplit TensorArrayConcat LSTMBlockCell
        Reverse ROIAlign RandomNormal TensorArrayInsert TensorArrayErase EyeLike CumSum Det CumProd
        ScatterElements GatherElements Svd Histogram DynamicQuant Stft
    """,
    256: """
        Plugin Select ZerosLike Broastcast SetDiff1D ReluGrad Identity PoolGrad SoftmaxGrad Conv2DBackPropFilter
        TrainableParam BatchNorm ConvTranspose3D ZeroGrad
    """,
    299: "Attention FmhaV2 Fmhca SeqLen2Spatial SplitGeLU GroupNorm LinearAttention RoPE FusedLinear GatedRMSNorm",
    512: "Extra ConvInt8 Int8ToFloat DepthwiseConvInt8",
    517: "FloatToInt8 EltwiseInt8",
    600: "While If",
    603: "LayerNorm GridSample",
}
OP_TYPES = {first + index: name for first, names in _OP_TYPES.items() for index, name in enumerate(names.split())}
"""MNN.fbs, OpType: name of each number."""
