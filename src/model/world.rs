//! What world models have in common: pictures to embeddings, actions to what they lead to, and what that costs.

use burn::tensor::{Device, Tensor};

use super::lewm::MAX_SEQUENCES;
use super::{ActionPredictor, Dynamics, Encoder, LeWm, Pictures, VJepa2Ac};
use crate::config::ModelConfig;
use crate::device::{Precision, read_values};
use crate::nn::{Parameters, ops};
use crate::world::{Axis, Candidates, Cem, Cost, Slopes};
use crate::{Error, Result};

/// Tokens of V-JEPA 2-AC that are predicted at once: a round of its planner has 200,000, and abort signals are looked at in between.
const TOKENS_AT_ONCE: usize = 4096;

/// What a prediction starts from. A frame has one embedding (LeWorldModel), or one for each patch.
#[derive(Clone, Debug)]
pub struct Context {
    /// Embeddings of the last frames, the latest last, `[frames·embeddings, d]`.
    pub embeddings: Tensor<2>,
    /// Actions between them, `[frames − 1, action]` row-major.
    pub actions: Vec<f32>,
    /// States in them, `[frames, state]`; none where the model is told none.
    pub states: Vec<f32>,
}

/// What a plan should lead to.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Of the wanted frame, `[d]`, or of all of its patches, `[patches·d]`.
    pub embedding: Tensor<1>,
    /// Which predictions are compared with it.
    pub cost: Cost,
}

impl From<Tensor<1>> for Goal {
    /// That the last prediction should be, as published.
    fn from(embedding: Tensor<1>) -> Self {
        Self {
            embedding,
            cost: Cost::default(),
        }
    }
}

/// A world model of one of the published systems.
pub enum WorldModel {
    /// LeWorldModel.
    LeWm(Box<LeWm>),
    /// V-JEPA 2-AC.
    VJepa2Ac(Box<VJepa2Ac>),
}

/// The sizes of what a world model takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Embeddings of a frame; none where a frame is one.
    pub tokens: Option<usize>,
    /// Numbers of an embedding.
    pub hidden: usize,
    /// Numbers of an action.
    pub action: usize,
    /// Numbers of a state; 0 where there is none.
    pub state: usize,
    /// Most frames that a prediction is made from.
    pub history: usize,
}

impl Sizes {
    /// Those of the model that `config` describes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where that is no world model.
    pub fn of(config: &ModelConfig) -> Result<Self> {
        let [steps, rows, columns] = config.grid();
        let hidden = config.hidden_size;
        let told = config.predictor.as_ref().and_then(|p| p.actions);
        match (&config.lewm, told) {
            (Some(lewm), _) => Ok(Self {
                tokens: None,
                hidden,
                action: lewm.action_size,
                state: 0,
                history: lewm.history,
            }),
            (None, Some(actions)) => Ok(Self {
                tokens: Some(rows * columns),
                hidden,
                action: actions.action_size,
                state: actions.state_size,
                history: steps,
            }),
            (None, None) => Err(Error::Unsupported(
                "this is no world model: use LeWorldModel, whose config.json has the system \"lewm\", or V-JEPA 2-AC, whose \
                 `predictor` has `actions`"
                    .into(),
            )),
        }
    }

    /// Numbers of all embeddings of a frame.
    pub fn frame(&self) -> usize {
        self.tokens.unwrap_or(1) * self.hidden
    }
}

impl WorldModel {
    /// Builds the model that `config` describes from its encoder and the parameters of the rest.
    ///
    /// # Errors
    /// As [`Sizes::of`]; [`Error::MissingTensor`].
    pub fn of(encoder: Encoder, device: &Device, parameters: &mut Parameters) -> Result<Self> {
        let config = encoder.config().clone();
        Sizes::of(&config)?;
        Ok(match config.lewm {
            Some(_) => {
                let dynamics = Dynamics::take(&config, device, parameters)?;
                Self::LeWm(Box::new(LeWm::of(encoder, dynamics)))
            }
            None => {
                let predictor = ActionPredictor::take(&config, device, parameters)?;
                Self::VJepa2Ac(Box::new(VJepa2Ac::of(encoder, predictor)))
            }
        })
    }

    /// Builds it from all of its parameters.
    ///
    /// # Errors
    /// As [`of`](Self::of) and [`Encoder::new`].
    pub fn new(
        config: &ModelConfig,
        precision: Precision,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let encoder = Encoder::new(config, precision, device, parameters)?;
        Self::of(encoder, device, parameters)
    }

    /// The encoder of pictures.
    pub fn encoder(&self) -> &Encoder {
        match self {
            Self::LeWm(model) => model.encoder(),
            Self::VJepa2Ac(model) => model.encoder(),
        }
    }

    /// Embeddings of pictures: `[pictures·embeddings, d]`.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn encode(&self, pictures: &Pictures) -> Result<Tensor<2>> {
        match self {
            Self::LeWm(model) => model.encode(pictures),
            Self::VJepa2Ac(model) => model.encode(pictures),
        }
    }

    /// The published planner, with axes without bounds where an action is not the published one.
    pub fn planner(&self) -> Cem {
        match self {
            Self::LeWm(model) => Cem::lewm(model.dynamics().action_size()),
            Self::VJepa2Ac(model) => {
                let mut cem = Cem::vjepa2_ac();
                let action = model.predictor().action_size();
                if action != cem.space.axes.len() {
                    cem.space.axes = vec![Axis::free(1.0); action];
                }
                cem
            }
        }
    }

    /// How many sequences of `horizon` actions are predicted at once from a context.
    pub fn at_once(&self, context: &Context, horizon: usize) -> usize {
        match self {
            Self::LeWm(_) => MAX_SEQUENCES,
            Self::VJepa2Ac(model) => {
                let frames = model.frames(context) + horizon.saturating_sub(1);
                let predictor = model.predictor();
                let seen = predictor.tokens(frames.min(predictor.history()));
                (TOKENS_AT_ONCE / seen.max(1)).max(1)
            }
        }
    }

    /// What the gradient planner multiplies gradients with, so that the cost counts as a mean over features.
    pub fn rate(&self) -> f64 {
        match self {
            Self::LeWm(model) => (model.encoder().config().hidden_size as f64).recip(),
            Self::VJepa2Ac(_) => 1.0,
        }
    }

    /// What sequences of actions lead to, step by step: embeddings after each action, `horizon` tensors `[count·embeddings, d]`. `states`
    /// as [`VJepa2Ac::rollout`] takes them.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a context, candidates or states of other sizes.
    pub fn rollout(
        &self,
        context: &Context,
        candidates: &Candidates,
        states: Option<&[f32]>,
    ) -> Result<Vec<Tensor<2>>> {
        match self {
            Self::LeWm(model) => {
                check_stateless(context, states)?;
                model.dynamics().rollout(context, candidates)
            }
            Self::VJepa2Ac(model) => model.rollout(context, candidates, states),
        }
    }

    /// What each candidate costs: how far from the goal it ends, or is on its way, as the system's planner measures that. Read back
    /// once.
    ///
    /// # Errors
    /// As [`rollout`](Self::rollout); [`Error::Internal`] when the device fails.
    pub async fn costs(
        &self,
        context: &Context,
        goal: &Goal,
        candidates: &Candidates,
    ) -> Result<Vec<f32>> {
        let costed = self.costed(context, goal, candidates, false, async || Ok(()));
        Ok(costed.await?.costs)
    }

    /// The same, and the gradient of each candidate's cost with respect to its actions.
    ///
    /// # Errors
    /// As [`costs`](Self::costs).
    pub async fn slopes(
        &self,
        context: &Context,
        goal: &Goal,
        candidates: &Candidates,
    ) -> Result<Slopes> {
        self.costed(context, goal, candidates, true, async || Ok(()))
            .await
    }

    /// [`costs`](Self::costs), or [`slopes`](Self::slopes), of as many candidates at a time as [`at_once`](Self::at_once) says. `turn` is
    /// waited for before each such pass.
    ///
    /// # Errors
    /// As [`costs`](Self::costs), and what `turn` fails with.
    pub async fn costed(
        &self,
        context: &Context,
        goal: &Goal,
        candidates: &Candidates,
        slopes: bool,
        mut turn: impl AsyncFnMut() -> Result<()>,
    ) -> Result<Slopes> {
        candidates.check(Sizes::of(self.encoder().config())?.action)?;
        let mut costed = Vec::new();
        let parts = || candidates.chunks(self.at_once(context, candidates.horizon));
        for part in parts() {
            turn().await?;
            costed.push(match self {
                Self::LeWm(model) => {
                    check_stateless(context, None)?;
                    model.dynamics().costed(context, goal, &part, slopes)?
                }
                Self::VJepa2Ac(model) => model.costed(context, goal, &part, slopes)?,
            });
        }
        let lengths: Vec<usize> = costed.iter().map(|part| part.dims()[0]).collect();
        let device = goal.embedding.device();
        let values = read_values(ops::stacked(costed, &device)).await?;
        let mut rest = &values[..];
        let mut all = Slopes::default();
        for (part, length) in parts().zip(lengths) {
            let (own, others) = rest.split_at(length);
            rest = others;
            let own = match self {
                Self::LeWm(model) => model.dynamics().understood(context, &part, own),
                Self::VJepa2Ac(model) => model.understood(context, &part, own)?,
            };
            all.costs.extend(own.costs);
            all.gradients.extend(own.gradients);
        }
        Ok(all)
    }
}

fn check_stateless(context: &Context, states: Option<&[f32]>) -> Result<()> {
    match context.states.is_empty() && states.is_none() {
        true => Ok(()),
        false => Err(Error::BadInput(
            "this model is told no states: leave them out".into(),
        )),
    }
}
