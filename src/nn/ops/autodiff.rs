//! [`Ops`] under automatic differentiation: the operation itself on the backend below, and its gradient from
//! [`BackwardOps`]. What a parent does not need is not computed, so frozen parameters cost no gradient.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops as Step, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, TensorMetadata};
use burn::tensor::Shape;

use super::backward::BackwardOps;
use super::block::{self, BlockForm, BlockPrimitive};
use super::{Activation, AttentionMask, Ops, ResidualPrimitive, WeightPrimitive};
use crate::objective::distance::Distance;

type Primitive<B> = FloatTensor<B>;

/// Implements [`Backward`] for a step's name by a function of its parents' nodes, its state and the gradient of its output.
macro_rules! backward {
    ($name:ident, $parents:literal, $state:ty, |$nodes:ident, $saved:pat_param, $dy:ident, $grads:ident| $body:expr) => {
        #[derive(Debug)]
        struct $name;

        impl<B: BackwardOps> Backward<B, $parents> for $name {
            type State = $state;

            fn backward(
                self,
                step: Step<Self::State, $parents>,
                $grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let $dy = $grads.consume::<B>(&step.node);
                let $nodes = step.parents;
                let $saved = step.state;
                $body
            }
        }
    };
}

backward!(
    LinearStep,
    4,
    (
        Primitive<B>,
        WeightPrimitive<B>,
        Option<Primitive<B>>,
        Option<Shape>
    ),
    |nodes, (x, weight, before_gelu, residual), dy, grads| {
        let [node_x, node_weight, node_bias, node_residual] = nodes;
        if let (Some(node), Some(shape)) = (node_residual, residual) {
            let gradient = match dy.shape() == shape {
                true => dy.clone(),
                false => B::repeated_gradient(dy.clone(), shape.to_vec()),
            };
            grads.register::<B>(node.id, gradient);
        }
        let dy = match before_gelu {
            Some(z) => B::activate_gradient(z, dy, Activation::Gelu),
            None => dy,
        };
        if node_weight.is_some() || node_bias.is_some() {
            let (d_weight, d_bias) = B::linear_parameter_gradients(x, dy.clone());
            if let Some(node) = node_weight {
                grads.register::<B>(node.id, d_weight);
            }
            if let Some(node) = node_bias {
                grads.register::<B>(node.id, d_bias);
            }
        }
        if let Some(node) = node_x {
            grads.register::<B>(node.id, B::linear_input_gradient(dy, weight));
        }
    }
);

backward!(
    NormStep,
    3,
    (Primitive<B>, Primitive<B>, f64),
    |nodes, (x, gain, eps), dy, grads| {
        for (node, gradient) in nodes.into_iter().zip(B::norm_gradients(x, gain, eps, dy)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
);

backward!(
    AttentionStep,
    1,
    (
        Primitive<B>,
        Primitive<B>,
        Primitive<B>,
        usize,
        AttentionMask
    ),
    |nodes, (qkv, y, sums, heads, mask), dy, grads| {
        if let [Some(node)] = nodes {
            let gradient = B::self_attention_gradient(qkv, y, sums, heads, mask, dy);
            grads.register::<B>(node.id, gradient);
        }
    }
);

backward!(
    AttendStep,
    2,
    (
        Primitive<B>,
        Primitive<B>,
        Primitive<B>,
        Primitive<B>,
        usize
    ),
    |nodes, (query, kv, y, sums, heads), dy, grads| {
        let gradients = B::attend_gradients(query, kv, y, sums, heads, dy);
        for (node, gradient) in nodes.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
);

backward!(
    RotateStep,
    1,
    (Primitive<B>, usize),
    |nodes, (table, heads), dy, grads| {
        if let [Some(node)] = nodes {
            grads.register::<B>(node.id, B::rotate(dy, table, heads, true));
        }
    }
);

backward!(
    ActivateStep,
    1,
    (Primitive<B>, Activation),
    |nodes, (x, activation), dy, grads| {
        if let [Some(node)] = nodes {
            grads.register::<B>(node.id, B::activate_gradient(x, dy, activation));
        }
    }
);

backward!(
    SelectStep,
    2,
    (IntTensor<B>, IntTensor<B>, Shape, Option<Shape>),
    |nodes, (offsets, places, shape, rest), dy, grads| {
        let [node_x, node_rest] = nodes;
        let width = shape[shape.num_dims() - 1];
        let first = shape.num_elements() / width;
        if let (Some(node), Some(rest)) = (node_rest, rest) {
            let gradient = B::select_gradient(
                dy.clone(),
                offsets.clone(),
                places.clone(),
                first,
                rest.to_vec(),
            );
            grads.register::<B>(node.id, gradient);
        }
        if let Some(node) = node_x {
            grads.register::<B>(
                node.id,
                B::select_gradient(dy, offsets, places, 0, shape.to_vec()),
            );
        }
    }
);

backward!(
    DistanceStep,
    1,
    (Primitive<B>, Primitive<B>, Distance),
    |nodes, (prediction, target, distance), dy, grads| {
        if let [Some(node)] = nodes {
            grads.register::<B>(
                node.id,
                B::distance_gradient(prediction, target, distance, dy),
            );
        }
    }
);

backward!(SumStep, 2, (), |nodes, (), dy, grads| {
    for node in nodes.into_iter().flatten() {
        grads.register::<B>(node.id, dy.clone());
    }
});

backward!(
    MultiplyAddStep,
    3,
    (Primitive<B>, Primitive<B>, Option<Shape>),
    |nodes, (a, b, residual), dy, grads| {
        let [node_a, node_b, node_c] = nodes;
        let shrunk = |gradient: Primitive<B>, shape: Shape| match gradient.shape() == shape {
            true => gradient,
            false => B::repeated_gradient(gradient, shape.to_vec()),
        };
        if let (Some(node), Some(shape)) = (node_c, residual) {
            grads.register::<B>(node.id, shrunk(dy.clone(), shape));
        }
        if let Some(node) = node_b {
            let product = B::multiply_add(dy.clone(), a, ResidualPrimitive::Nothing);
            grads.register::<B>(node.id, shrunk(product, b.shape()));
        }
        if let Some(node) = node_a {
            let product = B::multiply_add(dy, b, ResidualPrimitive::Nothing);
            grads.register::<B>(node.id, product);
        }
    }
);

backward!(ReshapedStep, 1, Shape, |nodes, shape, dy, grads| {
    if let [Some(node)] = nodes {
        grads.register::<B>(node.id, B::reshaped(dy, shape.to_vec()));
    }
});

backward!(HalvedStep, 1, (), |nodes, (), dy, grads| {
    if let [Some(node)] = nodes {
        grads.register::<B>(node.id, dy);
    }
});

backward!(PooledStep, 1, usize, |nodes, tokens, dy, grads| {
    if let [Some(node)] = nodes {
        grads.register::<B>(node.id, B::pooled_gradient(dy, tokens));
    }
});

backward!(
    BatchNormStep,
    3,
    (Primitive<B>, Primitive<B>, Primitive<B>, Primitive<B>, f64),
    |nodes, (x, gain, mean, variance, eps), dy, grads| {
        let gradients = B::batch_norm_gradients(x, gain, mean, variance, eps, dy);
        for (node, gradient) in nodes.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
);

backward!(
    WithGradientStep,
    1,
    Primitive<B>,
    |nodes, gradient, dy, grads| {
        if let [Some(node)] = nodes {
            grads.register::<B>(node.id, B::scaled(gradient, dy));
        }
    }
);

backward!(
    RecomputedBlockStep,
    13,
    (
        Primitive<B>,
        BlockPrimitive<B>,
        ResidualPrimitive<B>,
        BlockForm
    ),
    |nodes, (x, parameters, rotary, form), dy, grads| {
        let wanted = std::array::from_fn(|i| nodes[i].is_some());
        let gradients = block::gradients::<B>(x, parameters, rotary, form, dy, wanted);
        for (node, gradient) in nodes.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
);

impl<B: BackwardOps, C: CheckpointStrategy> Ops for Autodiff<B, C> {
    fn linear(
        x: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
        bias: FloatTensor<Self>,
        residual: ResidualPrimitive<Self>,
        gelu: bool,
    ) -> FloatTensor<Self> {
        // A parent stands in where there is none with a gradient: its own gradient is then not asked for.
        let bias_value = bias.primitive().clone();
        let no_gradient = || Self::from_inner(bias_value.clone()).node();
        let weight_node = match &weight {
            WeightPrimitive::Full(weight) | WeightPrimitive::Half(weight) => weight.node(),
            WeightPrimitive::Quantized { .. } => no_gradient(),
        };
        let (residual, residual_node): (ResidualPrimitive<B>, _) = match residual {
            ResidualPrimitive::Nothing => (ResidualPrimitive::Nothing, no_gradient()),
            ResidualPrimitive::Rows(rows) => {
                let (rows, node) = rows.into_parts();
                (ResidualPrimitive::Rows(rows), node)
            }
        };
        let weight = match weight {
            WeightPrimitive::Full(weight) => WeightPrimitive::Full(weight.into_primitive()),
            WeightPrimitive::Half(weight) => WeightPrimitive::Half(weight.into_primitive()),
            WeightPrimitive::Quantized { values, scales } => WeightPrimitive::Quantized {
                values,
                scales: scales.into_primitive(),
            },
        };
        let (x, x_node) = x.into_parts();
        let (bias, bias_node) = bias.into_parts();
        match LinearStep
            .prepare::<C>([x_node, weight_node, bias_node, residual_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let residual_shape = match &residual {
                    ResidualPrimitive::Nothing => None,
                    ResidualPrimitive::Rows(rows) => Some(rows.shape()),
                };
                if gelu {
                    let nothing = ResidualPrimitive::Nothing;
                    let z =
                        <B as Ops>::linear(x.clone(), weight.clone(), bias.clone(), nothing, false);
                    let y = match residual {
                        ResidualPrimitive::Nothing => B::activate(z.clone(), Activation::Gelu),
                        // Computed twice: no model adds to what comes out of a GELU.
                        rows => <B as Ops>::linear(x.clone(), weight.clone(), bias, rows, true),
                    };
                    prep.finish((x, weight, Some(z), residual_shape), y)
                } else {
                    let y = <B as Ops>::linear(x.clone(), weight.clone(), bias, residual, false);
                    prep.finish((x, weight, None, residual_shape), y)
                }
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(<B as Ops>::linear(x, weight, bias, residual, gelu))
            }
        }
    }

    fn norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (gain, gain_node) = gain.into_parts();
        let (shift, shift_node) = shift.into_parts();
        match NormStep
            .prepare::<C>([x_node, gain_node, shift_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let y = B::norm(x.clone(), gain.clone(), shift, eps);
                prep.finish((x, gain, eps), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::norm(x, gain, shift, eps)),
        }
    }

    fn self_attention(
        qkv: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
    ) -> FloatTensor<Self> {
        let (qkv, node) = qkv.into_parts();
        match AttentionStep
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let (y, sums) = B::self_attention_and_sums(qkv.clone(), heads, mask);
                prep.finish((qkv, y.clone(), sums, heads, mask), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::self_attention(qkv, heads, mask)),
        }
    }

    fn attend(
        query: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (query, query_node) = query.into_parts();
        let (kv, kv_node) = kv.into_parts();
        let (y, sums) = <B as Ops>::attend(query.clone(), kv.clone(), heads);
        let y = match AttendStep
            .prepare::<C>([query_node, kv_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((query, kv, y.clone(), sums.clone(), heads), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, Self::from_inner(sums))
    }

    fn rotate(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        heads: usize,
        back: bool,
    ) -> FloatTensor<Self> {
        let (qkv, node) = qkv.into_parts();
        let table = table.into_primitive();
        let y = B::rotate(qkv, table.clone(), heads, back);
        match RotateStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((table, heads), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match ActivateStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::activate(x.clone(), activation);
                prep.finish((x, activation), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::activate(x, activation)),
        }
    }

    fn select(
        x: FloatTensor<Self>,
        rest: ResidualPrimitive<Self>,
        added: ResidualPrimitive<Self>,
        index: IntTensor<Self>,
        offsets: IntTensor<Self>,
        places: IntTensor<Self>,
        batch: usize,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (rest, rest_node): (ResidualPrimitive<B>, _) = match rest {
            ResidualPrimitive::Nothing => (
                ResidualPrimitive::Nothing,
                Self::from_inner(x.clone()).node(),
            ),
            ResidualPrimitive::Rows(rows) => {
                let (rows, node) = rows.into_parts();
                (ResidualPrimitive::Rows(rows), node)
            }
        };
        let added = match added {
            ResidualPrimitive::Nothing => ResidualPrimitive::Nothing,
            ResidualPrimitive::Rows(rows) => ResidualPrimitive::Rows(rows.into_primitive()),
        };
        let shape = x.shape();
        let rest_shape = match &rest {
            ResidualPrimitive::Nothing => None,
            ResidualPrimitive::Rows(rows) => Some(rows.shape()),
        };
        let y = B::select(
            x,
            rest,
            added,
            index,
            offsets.clone(),
            places.clone(),
            batch,
        );
        match SelectStep
            .prepare::<C>([x_node, rest_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((offsets, places, shape, rest_shape), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn distance(
        prediction: FloatTensor<Self>,
        target: FloatTensor<Self>,
        distance: Distance,
    ) -> FloatTensor<Self> {
        let (prediction, node) = prediction.into_parts();
        let target = target.into_primitive();
        match DistanceStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::distance(prediction.clone(), target.clone(), distance);
                prep.finish((prediction, target, distance), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::distance(prediction, target, distance)),
        }
    }

    fn sum(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let (a, a_node) = a.into_parts();
        let (b, b_node) = b.into_parts();
        SumStep
            .prepare::<C>([a_node, b_node])
            .compute_bound()
            .stateless(B::sum(a, b))
    }

    fn multiply_add(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: ResidualPrimitive<Self>,
    ) -> FloatTensor<Self> {
        let (a, a_node) = a.into_parts();
        let (b, b_node) = b.into_parts();
        let (c, c_node): (ResidualPrimitive<B>, _) = match c {
            ResidualPrimitive::Nothing => (
                ResidualPrimitive::Nothing,
                Self::from_inner(b.clone()).node(),
            ),
            ResidualPrimitive::Rows(rows) => {
                let (rows, node) = rows.into_parts();
                (ResidualPrimitive::Rows(rows), node)
            }
        };
        match MultiplyAddStep
            .prepare::<C>([a_node, b_node, c_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let residual = match &c {
                    ResidualPrimitive::Nothing => None,
                    ResidualPrimitive::Rows(rows) => Some(rows.shape()),
                };
                let y = <B as Ops>::multiply_add(a.clone(), b.clone(), c);
                prep.finish((a, b, residual), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(<B as Ops>::multiply_add(a, b, c)),
        }
    }

    fn reshaped(x: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let before = x.shape();
        match ReshapedStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(before, B::reshaped(x, shape)),
            OpsKind::UnTracked(prep) => prep.finish(B::reshaped(x, shape)),
        }
    }

    fn halved(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match HalvedStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), B::halved(x)),
            OpsKind::UnTracked(prep) => prep.finish(B::halved(x)),
        }
    }

    fn pooled(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let tokens = x.shape()[1];
        match PooledStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(tokens, B::pooled(x)),
            OpsKind::UnTracked(prep) => prep.finish(B::pooled(x)),
        }
    }

    fn batch_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, x_node) = x.into_parts();
        let (gain, gain_node) = gain.into_parts();
        let (shift, shift_node) = shift.into_parts();
        let (y, mean, variance) = <B as Ops>::batch_norm(x.clone(), gain.clone(), shift, eps);
        let y = match BatchNormStep
            .prepare::<C>([x_node, gain_node, shift_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                prep.finish((x, gain, mean.clone(), variance.clone(), eps), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        (y, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn recomputed_block(
        x: FloatTensor<Self>,
        parameters: BlockPrimitive<Self>,
        rotary: ResidualPrimitive<Self>,
        form: BlockForm,
    ) -> FloatTensor<Self> {
        let rotary = match rotary {
            ResidualPrimitive::Nothing => ResidualPrimitive::Nothing,
            ResidualPrimitive::Rows(table) => ResidualPrimitive::Rows(table.into_primitive()),
        };
        let (x, x_node) = x.into_parts();
        let mut nodes = vec![x_node];
        let values = parameters.into_array().map(|parameter| {
            let (value, node) = parameter.into_parts();
            nodes.push(node);
            value
        });
        let values = BlockPrimitive::from_array(values);
        let Ok(nodes) = <[_; block::PARENTS]>::try_from(nodes) else {
            unreachable!("the input and every parameter have a node");
        };
        let y = block::forward::<B>(x.clone(), values.clone(), rotary.clone(), form);
        match RecomputedBlockStep
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, values, rotary, form), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn with_gradient(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let gradient = gradient.into_primitive();
        let value = B::with_gradient(x, gradient.clone());
        match WithGradientStep
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(gradient, value),
            OpsKind::UnTracked(prep) => prep.finish(value),
        }
    }
}
