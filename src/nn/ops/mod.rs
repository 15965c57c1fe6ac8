//! The few operations that every model of this crate is made of, as an extension of burn's backends.
//!
//! On the CPU they are matrix products and loops (see `cpu.rs`). On WebGPU each one is a
//! single hand-written WGSL kernel (see `webgpu.rs`): no autotuning before the first result, and none of the generated
//! shaders that browsers reject. [`backward`] has their gradients, `autodiff.rs` tells burn's automatic differentiation of
//! them, and [`update`] has what an optimizer does to a parameter.

mod autodiff;
pub mod backward;
mod block;
#[cfg(feature = "cpu")]
mod cpu;
#[cfg(feature = "cpu")]
mod cpu_backward;
#[cfg(any(feature = "webgpu", test))]
mod gelu;
mod place;
pub mod update;
#[cfg(feature = "webgpu")]
mod webgpu;
#[cfg(feature = "webgpu")]
mod webgpu_backward;
#[cfg(any(feature = "webgpu", test))]
mod wgsl;
#[cfg(any(feature = "webgpu", test))]
mod wgsl_backward;

use burn::backend::{
    Backend, Dispatch, ExtensionType, backend_extension,
    ops::{FloatTensorOps as _, IntTensorOps as _},
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{Device, Int, Shape, Tensor, TensorData};

use crate::objective::distance::Distance;

pub use block::{BlockForm, BlockPrimitive};
pub use place::placed;

/// A matrix `[d_in, d_out]` in the form in which it is kept in memory.
#[derive(Clone, Debug, ExtensionType)]
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
#[derive(Clone, Debug, ExtensionType)]
pub enum ResidualPrimitive<B: Backend> {
    /// Nothing.
    Nothing,
    /// A tensor of the output's shape, or with a leading axis of 1 that is repeated.
    Rows(FloatTensor<B>),
}

/// A nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The exact (erf) GELU.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// `x / (1 + exp(−x))`.
    Silu,
}

/// Which tokens of its sequence a token attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionMask {
    /// All of them.
    Full,
    /// Those of its own block of so many tokens, at least 1, and of all blocks before. With blocks of one token this is ordinary
    /// causal attention; with the tokens of a frame as a block a frame sees itself and the past.
    Causal {
        /// Tokens of a block. The last block of a sequence may have fewer.
        block: usize,
    },
}

impl AttentionMask {
    /// How many tokens the token at `query` attends to, which are the first of `tokens`.
    #[cfg(feature = "cpu")]
    fn visible(self, query: usize, tokens: usize) -> usize {
        match self {
            Self::Full => tokens,
            Self::Causal { block } => tokens.min((query / block + 1) * block),
        }
    }
}

/// Operations of a forward pass and of a loss.
#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(feature = "webgpu"), Autodiff)]
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
    ) -> FloatTensor<Self>;

    /// Softmax attention of every token to the tokens of its sequence that `mask` shows it. `qkv [batch, tokens, 3·d]` holds
    /// `[q | k | v]`, each split into heads; the scores are scaled by `head_dim^-0.5`. Returns `[batch, tokens, d]`.
    fn self_attention(
        qkv: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
    ) -> FloatTensor<Self>;

    /// Attention of one query, the same for every sequence: `query [d]`, `kv [batch, tokens, 2·d]` holding `[k | v]`, each split into
    /// heads; scaled as in [`self_attention`](Self::self_attention). Gives `[batch, d]`, and the logarithm of each head's sum of
    /// exponentials, `[batch, heads]`, which has no gradient.
    fn attend(
        query: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Rotary positions: queries and keys of `qkv [batch, tokens, 3·d]` turned pair by pair of channels, each head alike, by
    /// `table [rows, 2·head_dim]` as [`Rope`](crate::nn::rope::Rope) makes it, whose rows are repeated over the batch. Values stay
    /// as they are. `back` gives the gradient instead, of that of the output.
    fn rotate(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        heads: usize,
        back: bool,
    ) -> FloatTensor<Self>;

    /// An activation, element by element.
    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    /// Rows of `x [.., d]`, followed by those of `rest [.., d]`, picked by `index [batch·count]`, plus `added
    /// [batch·count, d]`, which has no gradient: `[batch, count, d]`, or `[count, d]` for a `batch` of 0. `offsets` and
    /// `places` are the inverse of `index`: row `i` was picked for the outputs `places[offsets[i] .. offsets[i + 1]]`.
    #[allow(
        clippy::too_many_arguments,
        reason = "primitives cannot be grouped with host numbers in one extension type"
    )]
    fn select(
        x: FloatTensor<Self>,
        #[extension_type] rest: ResidualPrimitive<Self>,
        #[extension_type] added: ResidualPrimitive<Self>,
        index: IntTensor<Self>,
        offsets: IntTensor<Self>,
        places: IntTensor<Self>,
        batch: usize,
    ) -> FloatTensor<Self>;

    /// The distance of each row of `prediction [.., d]` to that of `target [.., d]`: `[rows]`. The target has
    /// no gradient.
    fn distance(
        prediction: FloatTensor<Self>,
        target: FloatTensor<Self>,
        distance: Distance,
    ) -> FloatTensor<Self>;

    /// The sum of two tensors of one shape. (burn's own brings its arithmetic of quantized tensors along, a quarter of the
    /// CPU module.)
    fn sum(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `a · b + c`, element by element, with `a [.., d]`; `b` and `c` have its shape, or fewer rows of `d`, which are repeated.
    fn multiply_add(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        #[extension_type] c: ResidualPrimitive<Self>,
    ) -> FloatTensor<Self>;

    /// The same values in another shape. (burn's own gradient of it brings its reductions along.)
    fn reshaped(x: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self>;

    /// The values of a contiguous f32 tensor in f16, as [`WeightPrimitive::Half`] has them; what lies beyond f16's largest value
    /// becomes that. Its gradient is f32, and passed on as it is.
    fn halved(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The mean over tokens: `[batch, tokens, d]` → `[batch, d]`.
    fn pooled(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// BatchNorm by the batch's own statistics: `x [rows, d]` → `[rows, d]`, and the mean and biased variance of each
    /// column, `[d]`, which have no gradient.
    fn batch_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// A pre-norm block, `[batch, tokens, d]` → the same, whose gradient computes its inside again. Matrices are `[d_in, d_out]`, in f32 or
    /// f16; `rotary` is the table of [`rotate`](Self::rotate), or nothing.
    fn recomputed_block(
        x: FloatTensor<Self>,
        #[extension_type] parameters: BlockPrimitive<Self>,
        #[extension_type] rotary: ResidualPrimitive<Self>,
        form: BlockForm,
    ) -> FloatTensor<Self>;

    /// A value `[1]` whose gradient with respect to `x` is `gradient`, of the same shape: how a loss that is computed on the
    /// host enters backpropagation. The value itself is zero.
    fn with_gradient(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Sizes of a product with a matrix: the rows and the width of `x [.., width]`, and the dimensions `[.., other]`.
fn product_sizes(x: &Shape, other: usize) -> (usize, usize, Vec<usize>) {
    let mut dims = x.to_vec();
    let width = dims.pop().unwrap_or(1);
    let rows = dims.iter().product();
    dims.push(other);
    (rows, width, dims)
}

/// A matrix `[d_in, d_out]` in the form in which it is kept in memory.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a model holds few of them")]
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

impl Weight {
    /// `[d_in, d_out]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Full(w) | Self::Half(w) => w.dims(),
            Self::Quantized { values, .. } => values.dims(),
        }
    }
}

/// Numbers of the host as a tensor on `device`, of the type that they have. (burn's own `from_data` brings conversions between all types
/// along.)
pub fn uploaded<const D: usize>(data: TensorData, device: &Device) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::float_from_data(data, device.as_dispatch()))
}

/// The same of whole numbers.
pub fn uploaded_whole<const D: usize>(data: TensorData, device: &Device) -> Tensor<D, Int> {
    Tensor::from_dispatch(Dispatch::int_from_data(data, device.as_dispatch()))
}

/// What `make` makes of `input`, in buffers of the very size where the device is a GPU: for parameters and what an optimizer keeps of
/// them. Other tensors take any free buffer that is large enough, and what keeps such a buffer has another one made for whatever
/// needed it.
pub fn lasting<I: Send, T: Send>(device: &Device, input: I, make: impl Fn(I) -> T + Send) -> T {
    device.memory_persistent_allocations(input, make)
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
pub fn self_attention(qkv: Tensor<3>, heads: usize, mask: AttentionMask) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Ops>::self_attention(
        qkv.into_dispatch(),
        heads,
        mask,
    ))
}

/// See [`Ops::attend`].
pub fn attend(query: Tensor<1>, kv: Tensor<3>, heads: usize) -> Tensor<2> {
    let (y, _) = <Dispatch as Ops>::attend(query.into_dispatch(), kv.into_dispatch(), heads);
    Tensor::from_dispatch(y)
}

/// See [`Ops::rotate`].
pub fn rotate(qkv: Tensor<3>, table: &Tensor<2>, heads: usize) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Ops>::rotate(
        qkv.into_dispatch(),
        table.clone().into_dispatch(),
        heads,
        false,
    ))
}

/// See [`Ops::activate`].
pub fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Ops>::activate(x.into_dispatch(), activation))
}

/// Which rows [`select`] takes.
#[derive(Clone, Debug)]
pub struct Rows {
    index: Tensor<1, Int>,
    offsets: Tensor<1, Int>,
    places: Tensor<1, Int>,
    batch: usize,
}

impl Rows {
    /// `index[b]` names the rows of output `b`, all of one length, of `of` rows.
    ///
    /// # Panics
    /// When an index is not below `of`: callers have checked.
    pub fn new(index: &[Vec<usize>], of: usize, device: &Device) -> Self {
        let flat: Vec<usize> = index.iter().flatten().copied().collect();
        let mut offsets = vec![0i32; of + 1];
        for &row in &flat {
            offsets[row + 1] += 1;
        }
        for row in 0..of {
            offsets[row + 1] += offsets[row];
        }
        let mut free = offsets.clone();
        let mut places = vec![0i32; flat.len()];
        for (place, &row) in flat.iter().enumerate() {
            places[free[row] as usize] = place as i32;
            free[row] += 1;
        }
        let flat = flat.into_iter().map(|row| row as i32).collect();
        let upload = |values: Vec<i32>| {
            let length = values.len();
            uploaded_whole(TensorData::new(values, [length]), device)
        };
        Self {
            index: upload(flat),
            offsets: upload(offsets),
            places: upload(places),
            batch: index.len(),
        }
    }
}

/// See [`Ops::select`].
pub fn select<const D: usize>(
    x: Tensor<D>,
    rest: Option<Tensor<1>>,
    rows: &Rows,
    added: Option<Tensor<2>>,
) -> Tensor<3> {
    selected(x, rest, rows, added, rows.batch)
}

fn selected<const D: usize, const R: usize, const Y: usize>(
    x: Tensor<D>,
    rest: Option<Tensor<R>>,
    rows: &Rows,
    added: Option<Tensor<2>>,
    batch: usize,
) -> Tensor<Y> {
    Tensor::from_dispatch(<Dispatch as Ops>::select(
        x.into_dispatch(),
        optional(rest),
        optional(added),
        rows.index.clone().into_dispatch(),
        rows.offsets.clone().into_dispatch(),
        rows.places.clone().into_dispatch(),
        batch,
    ))
}

/// The shape of what [`Ops::select`] gives.
fn selected_shape(rows: usize, batch: usize, d: usize) -> Vec<usize> {
    match batch {
        0 => vec![rows, d],
        batch => vec![batch, rows / batch, d],
    }
}

/// The rows of `a`, and then those of `b`.
pub fn joined(a: Tensor<2>, b: Tensor<2>, device: &Device) -> Tensor<2> {
    let all = a.dims()[0] + b.dims()[0];
    let rows = Rows::new(&[(0..all).collect()], all, device);
    selected(a, Some(b), &rows, None, 0)
}

/// The rows of all parts, the first one's first.
///
/// # Panics
/// When there is none: callers have some.
pub fn stacked(mut parts: Vec<Tensor<2>>, device: &Device) -> Tensor<2> {
    // Two by two: so a row is copied as often as parts can be halved, not once for each part after it.
    while parts.len() > 1 {
        let mut rest = parts.into_iter();
        let mut pairs = Vec::new();
        while let Some(a) = rest.next() {
            pairs.push(match rest.next() {
                Some(b) => joined(a, b, device),
                None => a,
            });
        }
        parts = pairs;
    }
    parts.swap_remove(0)
}

/// The first `count` rows of `x`.
pub fn first_rows(x: Tensor<2>, count: usize, device: &Device) -> Tensor<2> {
    let rows = Rows::new(&[(0..count).collect()], x.dims()[0], device);
    selected(x, None::<Tensor<1>>, &rows, None, 0)
}

/// A vector as every one of `count` rows.
pub fn repeated(x: Tensor<1>, count: usize, device: &Device) -> Tensor<2> {
    let rows = Rows::new(&[vec![0; count]], 1, device);
    selected(x, None::<Tensor<1>>, &rows, None, 0)
}

/// Tensors of one shape one after the other in the last axis: `[batch, n, d]` each → `[batch, n, parts·d]`. As many as a power of two.
pub fn beside(mut parts: Vec<Tensor<3>>, device: &Device) -> Tensor<3> {
    while parts.len() > 1 {
        let [batch, n, d] = parts[0].dims();
        let of_sequence = |sequence: usize| -> Vec<usize> {
            let rows = sequence * n..(sequence + 1) * n;
            rows.flat_map(|row| [row, batch * n + row]).collect()
        };
        let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
        let rows = Rows::new(&index, 2 * batch * n, device);
        let mut rest = parts.into_iter();
        let mut pairs = Vec::new();
        while let (Some(a), Some(b)) = (rest.next(), rest.next()) {
            let both: Tensor<3> = selected(a, Some(b), &rows, None, batch);
            pairs.push(reshaped(both, [batch, n, 2 * d]));
        }
        parts = pairs;
    }
    parts.swap_remove(0)
}

fn optional<const D: usize>(x: Option<Tensor<D>>) -> ResidualPrimitive<Dispatch> {
    x.map_or(ResidualPrimitive::Nothing, |x| {
        ResidualPrimitive::Rows(x.into_dispatch())
    })
}

/// See [`Ops::distance`].
pub fn distance<const D: usize>(
    prediction: Tensor<D>,
    target: Tensor<D>,
    distance: Distance,
) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Ops>::distance(
        prediction.into_dispatch(),
        target.into_dispatch(),
        distance,
    ))
}

/// See [`Ops::sum`].
pub fn sum<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Ops>::sum(a.into_dispatch(), b.into_dispatch()))
}

/// See [`Ops::multiply_add`].
pub fn multiply_add<const D: usize, const R: usize>(
    a: Tensor<D>,
    b: Tensor<R>,
    c: Option<Tensor<R>>,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Ops>::multiply_add(
        a.into_dispatch(),
        b.into_dispatch(),
        optional(c),
    ))
}

/// See [`Ops::reshaped`].
pub fn reshaped<const D: usize, const R: usize>(x: Tensor<D>, shape: [usize; R]) -> Tensor<R> {
    Tensor::from_dispatch(<Dispatch as Ops>::reshaped(
        x.into_dispatch(),
        shape.to_vec(),
    ))
}

/// See [`Ops::halved`].
pub fn halved<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Ops>::halved(x.into_dispatch()))
}

/// See [`Ops::pooled`].
pub fn pooled(x: Tensor<3>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Ops>::pooled(x.into_dispatch()))
}

/// See [`Ops::batch_norm`].
pub fn batch_norm(
    x: Tensor<2>,
    gain: &Tensor<1>,
    shift: &Tensor<1>,
    eps: f64,
) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let (y, mean, variance) = <Dispatch as Ops>::batch_norm(
        x.into_dispatch(),
        gain.clone().into_dispatch(),
        shift.clone().into_dispatch(),
        eps,
    );
    (
        Tensor::from_dispatch(y),
        Tensor::from_dispatch(mean),
        Tensor::from_dispatch(variance),
    )
}

/// See [`Ops::recomputed_block`]. `layers` are `qkv`, `proj`, `fc1` and `fc2`.
///
/// # Panics
/// For int8 weights, which are not trained.
pub fn recomputed_block(
    x: Tensor<3>,
    layers: [(&Weight, &Tensor<1>); 4],
    norms: [[&Tensor<1>; 2]; 2],
    rotary: Option<&Tensor<2>>,
    form: BlockForm,
) -> Tensor<3> {
    let vector = |x: &Tensor<1>| x.clone().into_dispatch();
    let matrix = |weight: &Weight| match weight {
        Weight::Full(w) | Weight::Half(w) => w.clone().into_dispatch(),
        Weight::Quantized { .. } => unreachable!("int8 weights are not trained"),
    };
    let [qkv, proj, fc1, fc2] = layers;
    let [[norm1_gain, norm1_shift], [norm2_gain, norm2_shift]] = norms;
    let parameters = BlockPrimitive {
        norm1_gain: vector(norm1_gain),
        norm1_shift: vector(norm1_shift),
        qkv: matrix(qkv.0),
        qkv_bias: vector(qkv.1),
        proj: matrix(proj.0),
        proj_bias: vector(proj.1),
        norm2_gain: vector(norm2_gain),
        norm2_shift: vector(norm2_shift),
        fc1: matrix(fc1.0),
        fc1_bias: vector(fc1.1),
        fc2: matrix(fc2.0),
        fc2_bias: vector(fc2.1),
    };
    Tensor::from_dispatch(<Dispatch as Ops>::recomputed_block(
        x.into_dispatch(),
        parameters,
        optional(rotary.cloned()),
        form,
    ))
}

/// See [`Ops::with_gradient`].
pub fn with_gradient<const D: usize>(x: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Ops>::with_gradient(
        x.into_dispatch(),
        gradient.into_dispatch(),
    ))
}
