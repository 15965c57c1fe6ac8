//! Planners as callers describe them: which one, whose published settings, and what is to be otherwise.

use serde::Deserialize;

use super::{Axis, Candidates, Cem, Cost, Descent, Mppi, Pin, Plan, Slopes, Space};
use crate::rng::Generator;
use crate::{Error, Result};

/// Sequences that descend along their gradients, unless told otherwise: more find better minima, at a pass forth and back each.
const STARTS: usize = 16;

/// A description of a planner. What is absent is as published.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanOptions {
    /// Which planner.
    #[serde(default)]
    pub planner: Kind,
    /// Decides the samples.
    #[serde(default)]
    pub seed: u64,
    /// Which predictions count.
    #[serde(default)]
    pub cost: Cost,
    /// Where the search starts, `[horizon, action]`.
    pub start: Option<Vec<f64>>,
    /// Whose settings the others are; of none those of the model.
    pub preset: Option<Preset>,
    /// Actions of a sequence.
    pub horizon: Option<usize>,
    /// Sequences of a round.
    pub samples: Option<usize>,
    /// Rounds.
    pub iterations: Option<usize>,
    /// See [`Cem::elites`] and [`Mppi::elites`].
    pub elites: Option<usize>,
    /// See [`Cem::momentum`]; it counts for all axes that have none of their own.
    pub momentum: Option<[f64; 2]>,
    /// See [`Cem::centre`].
    pub centre: Option<bool>,
    /// See [`Mppi::temperature`].
    pub temperature: Option<f64>,
    /// See [`Mppi::max_std`].
    pub max_std: Option<f64>,
    /// See [`Descent::rate`].
    pub rate: Option<f64>,
    /// [`Axis::scale`] of every axis that is not pinned.
    pub scale: Option<f64>,
    /// [`Axis::limit`] of every axis that is not pinned.
    pub limit: Option<f64>,
    /// See [`Space::max_norm`].
    pub max_norm: Option<f64>,
    /// One for each number of an action.
    pub axes: Option<Vec<AxisOptions>>,
}

/// A kind of planner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Cem`].
    #[default]
    Cem,
    /// [`Mppi`].
    Mppi,
    /// [`Descent`].
    Gradient,
}

/// Who published settings of planners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// LeWorldModel: the cross-entropy method.
    Lewm,
    /// V-JEPA 2-AC: the cross-entropy method, for actions of seven numbers.
    #[serde(rename = "vjepa2-ac")]
    Vjepa2Ac,
    /// EB-JEPA: the cross-entropy method and path integrals.
    EbJepa,
    /// DINO-WM: the cross-entropy method, which is LeWorldModel's, and along gradients.
    DinoWm,
}

/// One number of an action; what is absent is as the options of all axes say, or as published.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AxisOptions {
    /// See [`Axis::scale`].
    pub scale: Option<f64>,
    /// See [`Axis::limit`].
    pub limit: Option<f64>,
    /// The first step of a [`Pin`] and its value.
    pub pin: Option<[f64; 2]>,
    /// See [`Axis::dead_zone`].
    pub dead_zone: Option<f64>,
    /// See [`Axis::momentum`].
    pub momentum: Option<[f64; 2]>,
}

/// A planner of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Planner {
    /// The cross-entropy method.
    Cem(Cem),
    /// Path integrals.
    Mppi(Mppi),
    /// Along the gradient of the cost.
    Gradient(Descent),
}

impl PlanOptions {
    /// The planner that is described. `own` is that of the model, `rate` what its gradients are multiplied with so that the cost is a mean over
    /// features.
    ///
    /// # Errors
    /// [`Error::BadInput`] for another number of axes than an action has numbers; [`Error::BadConfig`] for a preset that is of other actions,
    /// and for what cannot be searched.
    pub fn planner(&self, own: Cem, rate: f64) -> Result<Planner> {
        let action = own.space.axes.len();
        let cem = match self.preset {
            None => own,
            Some(Preset::Lewm | Preset::DinoWm) => Cem::lewm(action),
            Some(Preset::EbJepa) => Cem::eb_jepa(action),
            Some(Preset::Vjepa2Ac) => Cem::vjepa2_ac(),
        };
        if cem.space.axes.len() != action {
            return Err(Error::BadConfig(format!(
                "V-JEPA 2-AC's planner is of actions of {} numbers, and these have {action}",
                cem.space.axes.len()
            )));
        }
        let planner = match self.planner {
            Kind::Cem => Planner::Cem(Cem {
                space: self.space(cem.space)?,
                samples: self.samples.unwrap_or(cem.samples),
                elites: self.elites.unwrap_or(cem.elites),
                iterations: self.iterations.unwrap_or(cem.iterations),
                momentum: self.momentum.unwrap_or(cem.momentum),
                centre: self.centre.unwrap_or(cem.centre),
            }),
            Kind::Mppi => {
                let mppi = match self.preset {
                    Some(Preset::EbJepa) => Mppi::eb_jepa(action),
                    _ => Mppi {
                        space: cem.space,
                        samples: cem.samples,
                        iterations: cem.iterations,
                        temperature: 1.0,
                        elites: None,
                        max_std: None,
                        centre: true,
                    },
                };
                Planner::Mppi(Mppi {
                    space: self.space(mppi.space)?,
                    samples: self.samples.unwrap_or(mppi.samples),
                    iterations: self.iterations.unwrap_or(mppi.iterations),
                    temperature: self.temperature.unwrap_or(mppi.temperature),
                    elites: self.elites.or(mppi.elites),
                    max_std: self.max_std.or(mppi.max_std),
                    centre: self.centre.unwrap_or(mppi.centre),
                })
            }
            Kind::Gradient => {
                let descent = match self.preset {
                    Some(Preset::DinoWm) => Descent::dino_wm(action, rate),
                    _ => Descent {
                        space: cem.space,
                        starts: STARTS,
                        iterations: cem.iterations,
                        rate,
                    },
                };
                Planner::Gradient(Descent {
                    space: self.space(descent.space)?,
                    starts: self.samples.unwrap_or(descent.starts),
                    iterations: self.iterations.unwrap_or(descent.iterations),
                    rate: self.rate.unwrap_or(descent.rate),
                })
            }
        };
        planner.check()?;
        Ok(planner)
    }

    /// A published space with what is to be otherwise.
    fn space(&self, published: Space) -> Result<Space> {
        let mut axes = published.axes;
        for axis in axes.iter_mut().filter(|axis| axis.pin.is_none()) {
            axis.scale = self.scale.unwrap_or(axis.scale);
            axis.limit = self.limit.or(axis.limit);
        }
        if let Some(given) = &self.axes {
            if given.len() != axes.len() {
                return Err(Error::BadInput(format!(
                    "the option axes has {} entries, and an action {} numbers: give one for each",
                    given.len(),
                    axes.len()
                )));
            }
            for (axis, given) in axes.iter_mut().zip(given) {
                let pin = given.pin.map(|[from, value]| Pin {
                    from: from as usize,
                    value,
                });
                *axis = Axis {
                    scale: given.scale.unwrap_or(axis.scale),
                    limit: given.limit.or(axis.limit),
                    pin: pin.or(axis.pin),
                    dead_zone: given.dead_zone.unwrap_or(axis.dead_zone),
                    momentum: given.momentum.or(axis.momentum),
                };
            }
        }
        Ok(Space {
            horizon: self.horizon.unwrap_or(published.horizon),
            axes,
            max_norm: self.max_norm.or(published.max_norm),
        })
    }
}

impl Planner {
    /// # Errors
    /// As [`Cem::check`], [`Mppi::check`] and [`Descent::check`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Cem(cem) => cem.check(),
            Self::Mppi(mppi) => mppi.check(),
            Self::Gradient(descent) => descent.check(),
        }
    }

    /// What is searched.
    pub fn space(&self) -> &Space {
        match self {
            Self::Cem(Cem { space, .. })
            | Self::Mppi(Mppi { space, .. })
            | Self::Gradient(Descent { space, .. }) => space,
        }
    }

    /// Whether `cost` of [`plan`](Self::plan) gives gradients, too.
    pub fn descends(&self) -> bool {
        matches!(self, Self::Gradient(_))
    }

    /// Searches from `start [horizon, action]`, or from 0. `cost` gives that of each candidate, and gradients where the planner
    /// [`descends`](Self::descends).
    ///
    /// # Errors
    /// Those of [`Cem::plan`], [`Mppi::plan`] and [`Descent::plan`].
    pub async fn plan(
        &self,
        start: Option<&[f64]>,
        random: &mut impl Generator,
        mut cost: impl AsyncFnMut(&Candidates) -> Result<Slopes>,
    ) -> Result<Plan> {
        match self {
            Self::Cem(cem) => {
                let costs = async |candidates: &Candidates| Ok(cost(candidates).await?.costs);
                cem.plan(start, random, costs).await
            }
            Self::Mppi(mppi) => {
                let costs = async |candidates: &Candidates| Ok(cost(candidates).await?.costs);
                mppi.plan(start, random, costs).await
            }
            Self::Gradient(descent) => descent.plan(start, random, cost).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planner(options: PlanOptions) -> Result<Planner> {
        options.planner(Cem::lewm(2), 0.25)
    }

    #[test]
    fn what_is_absent_is_as_published() {
        assert_eq!(
            planner(PlanOptions::default()),
            Ok(Planner::Cem(Cem::lewm(2)))
        );
        let of = |planner, preset| {
            self::planner(PlanOptions {
                planner,
                preset: Some(preset),
                ..PlanOptions::default()
            })
        };
        let lewm = Ok(Planner::Cem(Cem::lewm(2)));
        assert_eq!(of(Kind::Cem, Preset::Lewm), lewm);
        assert_eq!(of(Kind::Cem, Preset::DinoWm), lewm);
        let eb = [
            of(Kind::Cem, Preset::EbJepa),
            of(Kind::Mppi, Preset::EbJepa),
        ];
        assert_eq!(
            eb,
            [
                Ok(Planner::Cem(Cem::eb_jepa(2))),
                Ok(Planner::Mppi(Mppi::eb_jepa(2)))
            ]
        );
        let descent = Descent::dino_wm(2, 0.25);
        assert_eq!(
            of(Kind::Gradient, Preset::DinoWm),
            Ok(Planner::Gradient(descent))
        );
        let other = of(Kind::Cem, Preset::Vjepa2Ac).unwrap_err();
        assert_eq!(other.code(), "bad-config");
        let arm = PlanOptions::default().planner(Cem::vjepa2_ac(), 1.0);
        assert_eq!(arm, Ok(Planner::Cem(Cem::vjepa2_ac())));
    }

    #[test]
    fn options_of_all_axes_leave_pinned_ones_and_give_way_to_their_own() {
        let mut axes = vec![AxisOptions::default(); 7];
        axes[1].limit = Some(0.01);
        axes[6] = AxisOptions {
            pin: Some([1.0, 1.0]),
            momentum: Some([0.15, 0.15]),
            ..AxisOptions::default()
        };
        let options = PlanOptions {
            limit: Some(0.02),
            momentum: Some([0.25, 0.95]),
            max_norm: Some(0.05),
            axes: Some(axes),
            ..PlanOptions::default()
        };
        let Ok(Planner::Cem(cem)) = options.planner(Cem::vjepa2_ac(), 1.0) else {
            unreachable!("the options are fine");
        };
        let Space { axes, max_norm, .. } = &cem.space;
        assert_eq!((cem.momentum, *max_norm), ([0.25, 0.95], Some(0.05)));
        assert_eq!(
            [0, 1, 2].map(|i| axes[i].limit),
            [0.02, 0.01, 0.02].map(Some)
        );
        assert_eq!(axes[3], Axis::pinned(0.0));
        assert_eq!(axes[6].momentum, Some([0.15, 0.15]));
        assert_eq!(axes[6].pin.map(|pin| (pin.from, pin.value)), Some((1, 1.0)));
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let code = |options| planner(options).map_err(|e| e.code()).map(|_| ());
        let none = PlanOptions::default;
        for (options, wanted) in [
            (
                PlanOptions {
                    elites: Some(301),
                    ..none()
                },
                "bad-config",
            ),
            (
                PlanOptions {
                    max_norm: Some(0.0),
                    ..none()
                },
                "bad-config",
            ),
            (
                PlanOptions {
                    momentum: Some([0.0, 2.0]),
                    ..none()
                },
                "bad-config",
            ),
            (
                PlanOptions {
                    planner: Kind::Mppi,
                    max_std: Some(-1.0),
                    ..none()
                },
                "bad-config",
            ),
            (
                PlanOptions {
                    planner: Kind::Gradient,
                    rate: Some(0.0),
                    ..none()
                },
                "bad-config",
            ),
            (
                PlanOptions {
                    axes: Some(vec![AxisOptions::default()]),
                    ..none()
                },
                "bad-input",
            ),
        ] {
            assert_eq!(code(options), Err(wanted));
        }
    }
}
