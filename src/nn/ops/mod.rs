//! The few operations that every model of this crate is made of, as an extension of burn's backends.
//!
//! On the CPU they compose burn's own operations, but for what follows a matmul (see `cpu.rs`). On WebGPU each one is a
//! single hand-written WGSL kernel (see `webgpu.rs`): no autotuning before the first result, and none of the generated
//! shaders that browsers reject.

#[cfg(feature = "cpu")]
mod cpu;
mod gelu;
#[cfg(feature = "webgpu")]
mod webgpu;
#[cfg(any(feature = "webgpu", test))]
mod wgsl;

use burn::backend::{
    Backend, Dispatch, ExtensionType, backend_extension,
    ops::ModuleOps,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{Int, Tensor};

/// A matrix `[d_in, d_out]` in the form in which it is kept in memory.
#[derive(ExtensionType)]
pub enum WeightPrimitive<B: Backend> {
    /// f32 values.
    Full(FloatTensor<B>),
    /// f16 values, widened to f32 where they are used.
    Half(FloatTensor<B>),
    /// int8 values with one f32 scale per output, `[d_out]`.
    Quantized {
        /// `[d_in, d_out]`.
        values: IntTensor<B>,
        /// `[d_out]`.
        scales: FloatTensor<B>,
    },
}

/// What a layer's output is added to.
#[derive(ExtensionType)]
pub enum ResidualPrimitive<B: Backend> {
    /// Nothing.
    Nothing,
    /// A tensor of the output's shape, or with a leading axis of 1 that is repeated.
    Rows(FloatTensor<B>),
}

/// Operations of a forward pass and of loading; where burn's own serve, they are the default body.
#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(feature = "webgpu"))]
pub trait Ops: Backend {
    /// `y = act(x · w + bias) + residual`: `x [.., d_in]`, `w [d_in, d_out]`, `bias [d_out]`, `act` the exact (erf) GELU
    /// or the identity.
    fn linear(
        x: FloatTensor<Self>,
        #[extension_type] weight: WeightPrimitive<Self>,
        bias: FloatTensor<Self>,
        #[extension_type] residual: ResidualPrimitive<Self>,
        gelu: bool,
    ) -> FloatTensor<Self>;

    /// LayerNorm over the last axis with biased variance: `x [.., d]`, `gain [d]`, `shift [d]`.
    fn norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        <Self as ModuleOps<Self>>::layer_norm(x, gain, Some(shift), eps)
    }

    /// Softmax attention of every token to every token of its sequence. `qkv [batch, tokens, 3·d]` holds
    /// `[q | k | v]`, each split into heads; the scores are scaled by `head_dim^-0.5`. Returns `[batch, tokens, d]`.
    fn self_attention(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self>;

    /// The same tensor, once everything queued so far is on its way to the device: a queue keeps the host's copy of what is
    /// to be uploaded.
    fn submitted(x: FloatTensor<Self>) -> FloatTensor<Self> {
        x
    }

    /// A `[rows, columns]` matrix with its axes exchanged, laid out as the backend's `linear` likes to read it.
    fn transposed(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_swap_dims(x, 0, 1)
    }
}

/// A matrix `[d_in, d_out]` in the form in which it is kept in memory.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model holds few of them")]
pub enum Weight {
    /// f32 values.
    Full(Tensor<2>),
    /// f16 values, widened to f32 where they are used.
    Half(Tensor<2>),
    /// int8 values `[d_in, d_out]` with one f32 scale per output, `[d_out]`.
    Quantized {
        /// The int8 values.
        values: Tensor<2, Int>,
        /// What an int8 step is worth, per output.
        scales: Tensor<1>,
    },
}

/// See [`Ops::linear`].
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: &Weight,
    bias: &Tensor<1>,
    residual: Option<Tensor<D>>,
    gelu: bool,
) -> Tensor<D> {
    let weight = match weight.clone() {
        Weight::Full(w) => WeightPrimitive::Full(w.into_dispatch()),
        Weight::Half(w) => WeightPrimitive::Half(w.into_dispatch()),
        Weight::Quantized { values, scales } => WeightPrimitive::Quantized {
            values: values.into_dispatch(),
            scales: scales.into_dispatch(),
        },
    };
    Tensor::from_dispatch(<Dispatch as Ops>::linear(
        x.into_dispatch(),
        weight,
        bias.clone().into_dispatch(),
        residual.map_or(ResidualPrimitive::Nothing, |r| {
            ResidualPrimitive::Rows(r.into_dispatch())
        }),
        gelu,
    ))
}

/// See [`Ops::norm`].
pub fn norm<const D: usize>(
    x: Tensor<D>,
    gain: &Tensor<1>,
    shift: &Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Ops>::norm(
        x.into_dispatch(),
        gain.clone().into_dispatch(),
        shift.clone().into_dispatch(),
        eps,
    ))
}

/// See [`Ops::self_attention`].
pub fn self_attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Ops>::self_attention(
        qkv.into_dispatch(),
        heads,
    ))
}

/// See [`Ops::transposed`].
pub fn transposed(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Ops>::transposed(x.into_dispatch()))
}

/// See [`Ops::submitted`].
pub fn submitted<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Ops>::submitted(x.into_dispatch()))
}
