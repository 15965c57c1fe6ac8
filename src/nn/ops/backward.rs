//! The gradients of [`Ops`], which automatic differentiation calls on the backend itself.

use burn::backend::tensor::{FloatTensor, IntTensor};

use super::{Activation, AttentionMask, Ops, WeightPrimitive};
use crate::objective::distance::Distance;

/// Gradients of the operations, each given that of its output, `dy`, which has the output's shape.
pub trait BackwardOps: Ops {
    /// Of [`Ops::linear`] without activation with respect to `x`: `dy · wᵀ`, `[.., d_out]` → `[.., d_in]`.
    fn linear_input_gradient(
        dy: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
    ) -> FloatTensor<Self>;

    /// Of the same with respect to the weight, `xᵀ · dy [d_in, d_out]`, and to the bias, the sum of the rows of `dy`, `[d_out]`.
    fn linear_parameter_gradients(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Of the residual of [`Ops::linear`] that was repeated over the batch: the sum over it, as a tensor of `shape`.
    fn repeated_gradient(dy: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self>;

    /// Of [`Ops::activate`].
    fn activate_gradient(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;

    /// Of [`Ops::norm`] with respect to `x`, `gain` and `shift`.
    fn norm_gradients(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];

    /// [`Ops::self_attention`], and the logarithm of each query's sum of exponentials, `[batch, heads, tokens]`.
    fn self_attention_and_sums(
        qkv: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Of [`Ops::self_attention`], from its input, its output and the sums.
    fn self_attention_gradient(
        qkv: FloatTensor<Self>,
        y: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Of [`Ops::attend`] with respect to the query and to keys and values, from its inputs, its output and the sums.
    fn attend_gradients(
        query: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        y: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        heads: usize,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];

    /// Of [`Ops::select`] with respect to rows `first .. first + count` of its input, as a tensor of `shape`.
    fn select_gradient(
        dy: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        places: IntTensor<Self>,
        first: usize,
        shape: Vec<usize>,
    ) -> FloatTensor<Self>;

    /// Of [`Ops::distance`] with respect to the prediction; `dy [rows]`.
    fn distance_gradient(
        prediction: FloatTensor<Self>,
        target: FloatTensor<Self>,
        distance: Distance,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Of [`Ops::pooled`]; `dy [batch, d]` → `[batch, tokens, d]`.
    fn pooled_gradient(dy: FloatTensor<Self>, tokens: usize) -> FloatTensor<Self>;

    /// Of [`Ops::batch_norm`] with respect to `x`, `gain` and `shift`, from the statistics that it returned.
    fn batch_norm_gradients(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        eps: f64,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];

    /// Of [`Ops::with_gradient`]: `gradient · dy[0]`.
    fn scaled(gradient: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
}
