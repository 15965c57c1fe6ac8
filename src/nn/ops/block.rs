//! A pre-norm block as one operation whose inside is not kept for its gradient but computed again (gradient checkpointing, arXiv
//! 1604.06174): a token then costs one row of the width for each block instead of some seventeen.

use burn::backend::{Backend, ExtensionType, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;

use super::backward::BackwardOps;
use super::{Activation, AttentionMask, Ops, ResidualPrimitive, WeightPrimitive};

/// Vectors and matrices of a block: see [`Ops::recomputed_block`].
#[derive(Clone, Debug, ExtensionType)]
#[allow(missing_docs, reason = "named as in a checkpoint")]
pub struct BlockPrimitive<B: Backend> {
    pub norm1_gain: FloatTensor<B>,
    pub norm1_shift: FloatTensor<B>,
    pub qkv: FloatTensor<B>,
    pub qkv_bias: FloatTensor<B>,
    pub proj: FloatTensor<B>,
    pub proj_bias: FloatTensor<B>,
    pub norm2_gain: FloatTensor<B>,
    pub norm2_shift: FloatTensor<B>,
    pub fc1: FloatTensor<B>,
    pub fc1_bias: FloatTensor<B>,
    pub fc2: FloatTensor<B>,
    pub fc2_bias: FloatTensor<B>,
}

const PARAMETERS: usize = 12;
/// A block's input and its parameters.
pub(super) const PARENTS: usize = 1 + PARAMETERS;

impl<B: Backend> BlockPrimitive<B> {
    /// In the order of the fields.
    pub(super) fn into_array(self) -> [FloatTensor<B>; PARAMETERS] {
        let Self {
            norm1_gain,
            norm1_shift,
            qkv,
            qkv_bias,
            proj,
            proj_bias,
            norm2_gain,
            norm2_shift,
            fc1,
            fc1_bias,
            fc2,
            fc2_bias,
        } = self;
        [
            norm1_gain,
            norm1_shift,
            qkv,
            qkv_bias,
            proj,
            proj_bias,
            norm2_gain,
            norm2_shift,
            fc1,
            fc1_bias,
            fc2,
            fc2_bias,
        ]
    }

    pub(super) fn from_array(parameters: [FloatTensor<B>; PARAMETERS]) -> Self {
        let [
            norm1_gain,
            norm1_shift,
            qkv,
            qkv_bias,
            proj,
            proj_bias,
            norm2_gain,
            norm2_shift,
            fc1,
            fc1_bias,
            fc2,
            fc2_bias,
        ] = parameters;
        Self {
            norm1_gain,
            norm1_shift,
            qkv,
            qkv_bias,
            proj,
            proj_bias,
            norm2_gain,
            norm2_shift,
            fc1,
            fc1_bias,
            fc2,
            fc2_bias,
        }
    }
}

/// What a block is apart from its tensors.
#[derive(Clone, Copy, Debug)]
pub struct BlockForm {
    /// Heads, which share the width.
    pub heads: usize,
    /// Added to the variances of its norms.
    pub eps: f64,
    /// Which tokens see each other.
    pub mask: AttentionMask,
}

/// What a block computes on the way.
struct Inside<B: Backend> {
    normed: FloatTensor<B>,
    /// Turned, where there are rotary positions.
    qkv: FloatTensor<B>,
    mixed: FloatTensor<B>,
    sums: FloatTensor<B>,
    middle: FloatTensor<B>,
    normed_middle: FloatTensor<B>,
    before_gelu: FloatTensor<B>,
}

fn weight<B: Backend>(matrix: FloatTensor<B>) -> WeightPrimitive<B> {
    match matrix.dtype() {
        DType::F16 => WeightPrimitive::Half(matrix),
        _ => WeightPrimitive::Full(matrix),
    }
}

/// burn has an operation of this name, too.
fn linear<B: Ops>(
    x: FloatTensor<B>,
    weight: WeightPrimitive<B>,
    bias: FloatTensor<B>,
    residual: ResidualPrimitive<B>,
) -> FloatTensor<B> {
    <B as Ops>::linear(x, weight, bias, residual, false)
}

fn turned<B: Ops>(
    qkv: FloatTensor<B>,
    rotary: ResidualPrimitive<B>,
    heads: usize,
    back: bool,
) -> FloatTensor<B> {
    match rotary {
        ResidualPrimitive::Nothing => qkv,
        ResidualPrimitive::Rows(table) => B::rotate(qkv, table, heads, back),
    }
}

fn inside<B: BackwardOps>(
    x: FloatTensor<B>,
    parameters: BlockPrimitive<B>,
    rotary: ResidualPrimitive<B>,
    BlockForm { heads, eps, mask }: BlockForm,
) -> Inside<B> {
    let p = parameters;
    let plain = |x, w, bias| linear::<B>(x, weight::<B>(w), bias, ResidualPrimitive::Nothing);
    let normed = B::norm(x.clone(), p.norm1_gain, p.norm1_shift, eps);
    let qkv = plain(normed.clone(), p.qkv, p.qkv_bias);
    let qkv = turned::<B>(qkv, rotary, heads, false);
    let (mixed, sums) = B::self_attention_and_sums(qkv.clone(), heads, mask);
    let onto = ResidualPrimitive::Rows(x);
    let middle = linear::<B>(mixed.clone(), weight::<B>(p.proj), p.proj_bias, onto);
    let normed_middle = B::norm(middle.clone(), p.norm2_gain, p.norm2_shift, eps);
    let before_gelu = plain(normed_middle.clone(), p.fc1, p.fc1_bias);
    Inside {
        normed,
        qkv,
        mixed,
        sums,
        middle,
        normed_middle,
        before_gelu,
    }
}

/// The block, in the operations that it is made of.
pub(super) fn forward<B: BackwardOps>(
    x: FloatTensor<B>,
    parameters: BlockPrimitive<B>,
    rotary: ResidualPrimitive<B>,
    form: BlockForm,
) -> FloatTensor<B> {
    let (fc2, bias) = (parameters.fc2.clone(), parameters.fc2_bias.clone());
    let inside = inside::<B>(x, parameters, rotary, form);
    let hidden = B::activate(inside.before_gelu, Activation::Gelu);
    let onto = ResidualPrimitive::Rows(inside.middle);
    linear::<B>(hidden, weight::<B>(fc2), bias, onto)
}

/// Gradients with respect to `x` and to the parameters in their order, those of matrices and their biases where `wanted` says so of
/// either.
pub(super) fn gradients<B: BackwardOps>(
    x: FloatTensor<B>,
    parameters: BlockPrimitive<B>,
    rotary: ResidualPrimitive<B>,
    form: BlockForm,
    dy: FloatTensor<B>,
    wanted: [bool; PARENTS],
) -> [Option<FloatTensor<B>>; PARENTS] {
    let BlockForm { heads, eps, mask } = form;
    let (norm1_gain, norm2_gain) = (parameters.norm1_gain.clone(), parameters.norm2_gain.clone());
    let matrices = [
        &parameters.qkv,
        &parameters.proj,
        &parameters.fc1,
        &parameters.fc2,
    ];
    let [qkv, proj, fc1, fc2] = matrices.map(|matrix| weight::<B>(matrix.clone()));
    let inside = inside::<B>(x.clone(), parameters, rotary.clone(), form);

    let of_layer =
        |x: FloatTensor<B>, dy: &FloatTensor<B>, at: usize| match wanted[at] || wanted[at + 1] {
            false => [None, None],
            true => {
                let (weight, bias) = B::linear_parameter_gradients(x, dy.clone());
                [Some(weight), Some(bias)]
            }
        };
    let hidden = B::activate(inside.before_gelu.clone(), Activation::Gelu);
    let [d_fc2, d_fc2_bias] = of_layer(hidden, &dy, 11);
    let d_hidden = B::linear_input_gradient(dy.clone(), fc2);
    let d_hidden = B::activate_gradient(inside.before_gelu, d_hidden, Activation::Gelu);
    let [d_fc1, d_fc1_bias] = of_layer(inside.normed_middle, &d_hidden, 9);
    let d_normed = B::linear_input_gradient(d_hidden, fc1);
    let [d_middle, d_gain2, d_shift2] = B::norm_gradients(inside.middle, norm2_gain, eps, d_normed);
    let d_middle = B::sum(d_middle, dy);
    let [d_proj, d_proj_bias] = of_layer(inside.mixed.clone(), &d_middle, 5);
    let d_mixed = B::linear_input_gradient(d_middle.clone(), proj);
    let d_qkv =
        B::self_attention_gradient(inside.qkv, inside.mixed, inside.sums, heads, mask, d_mixed);
    let d_qkv = turned::<B>(d_qkv, rotary, heads, true);
    let [d_qkv_weight, d_qkv_bias] = of_layer(inside.normed, &d_qkv, 3);
    let d_normed = B::linear_input_gradient(d_qkv, qkv);
    let [d_x, d_gain1, d_shift1] = B::norm_gradients(x, norm1_gain, eps, d_normed);
    [
        Some(B::sum(d_x, d_middle)),
        Some(d_gain1),
        Some(d_shift1),
        d_qkv_weight,
        d_qkv_bias,
        d_proj,
        d_proj_bias,
        Some(d_gain2),
        Some(d_shift2),
        d_fc1,
        d_fc1_bias,
        d_fc2,
        d_fc2_bias,
    ]
}
