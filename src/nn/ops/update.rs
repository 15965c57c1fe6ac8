//! What a step of training does to the parameters, in place where nothing else holds them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::ResidualPrimitive;

/// Lanes of the running sum of squares: one for each invocation that adds to it on a GPU.
pub const SQUARE_LANES: usize = 64;

/// The numbers of one AdamW step, which all parameters of a group share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; 0 for biases and one-dimensional parameters.
    pub weight_decay: f64,
    /// Step of the optimizer, from 1.
    pub step: u32,
}

impl AdamW {
    /// `[1 − lr · weight_decay, beta1, beta2, eps, lr / (1 − beta1^step), 1 / √(1 − beta2^step), scale, clip]`, computed in f64:
    /// what the update of an element needs. The gradient is multiplied by `scale` first; `clip` is the largest norm that
    /// [`UpdateOps::clipped`] leaves.
    pub fn numbers(&self, scale: f32, clip: f32) -> [f32; 8] {
        let (lr, step) = (self.lr, self.step as i32);
        let correction = |beta: f64| 1.0 - beta.powi(step);
        [
            (1.0 - lr * self.weight_decay) as f32,
            self.beta1 as f32,
            self.beta2 as f32,
            self.eps as f32,
            (lr / correction(self.beta1)) as f32,
            correction(self.beta2).sqrt().recip() as f32,
            scale,
            clip,
        ]
    }
}

/// Operations of an optimizer. Every tensor of a call has the same shape, but for those named otherwise.
#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(feature = "webgpu"))]
pub trait UpdateOps: Backend {
    /// One AdamW step (Loshchilov and Hutter, as in PyTorch): the new parameter and its two moments. `numbers [8]` are
    /// [`AdamW::numbers`].
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// An exponential moving average: `momentum · average + (1 − momentum) · value`, `momentum [1]`.
    fn averaged(
        average: FloatTensor<Self>,
        value: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// `total [SQUARE_LANES]`, whose sum grows by that of the squares of `x`, or of its differences to `minus`.
    fn add_squares(
        total: FloatTensor<Self>,
        x: FloatTensor<Self>,
        #[extension_type] minus: ResidualPrimitive<Self>,
    ) -> FloatTensor<Self>;

    /// `numbers [8]` of a step, with its scale lowered so that gradients whose squares sum up to the sum of
    /// `total [SQUARE_LANES]` have at most the norm `clip`: by `min(1, clip / (norm + 1e-6))`, as
    /// `torch.nn.utils.clip_grad_norm_` does it.
    fn clipped(total: FloatTensor<Self>, numbers: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// See [`UpdateOps::adamw`].
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    numbers: &Tensor<1>,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let (parameter, first, second) = <Dispatch as UpdateOps>::adamw(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        numbers.clone().into_dispatch(),
    );
    (
        Tensor::from_dispatch(parameter),
        [first, second].map(Tensor::from_dispatch),
    )
}

/// See [`UpdateOps::averaged`].
pub fn averaged<const D: usize>(
    average: Tensor<D>,
    value: Tensor<D>,
    momentum: &Tensor<1>,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as UpdateOps>::averaged(
        average.into_dispatch(),
        value.into_dispatch(),
        momentum.clone().into_dispatch(),
    ))
}

/// See [`UpdateOps::add_squares`].
pub fn add_squares<const D: usize>(
    total: Tensor<1>,
    x: Tensor<D>,
    minus: Option<Tensor<D>>,
) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as UpdateOps>::add_squares(
        total.into_dispatch(),
        x.into_dispatch(),
        minus.map_or(ResidualPrimitive::Nothing, |minus| {
            ResidualPrimitive::Rows(minus.into_dispatch())
        }),
    ))
}

/// See [`UpdateOps::clipped`].
pub fn clipped(total: &Tensor<1>, numbers: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as UpdateOps>::clipped(
        total.clone().into_dispatch(),
        numbers.into_dispatch(),
    ))
}
