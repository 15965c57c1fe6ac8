//! `webjepa plan`: acts in an environment with a world model, from pictures only, and counts how often the goal is reached.

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Tensor;
use clap::ValueEnum;
use serde_json::json;
use webjepa::checkpoint::{EncoderChoice, assemble};
use webjepa::device::{Backend, Precision, read_values};
use webjepa::environment::two_rooms::{Breach, breach, distance, path_length};
use webjepa::environment::{Environment, Explorer, Policy, Repeated, TwoRooms};
use webjepa::input::{ImageView, Processor};
use webjepa::model::{Context, Goal, Pictures, WorldModel};
use webjepa::nn::{Parameters, ops};
use webjepa::rng::Stream;
use webjepa::train::recipe::Options;
use webjepa::train::trainer::Trainer;
use webjepa::world::options::{AxisOptions, Kind};
use webjepa::world::{ActionScale, Candidates, Cem, Cost, PlanOptions, Planner};
use webjepa::{Error, Result};

use super::Model;
use super::statistics::{Compared, median};
use super::world::{About, environment};

/// Pictures whose embeddings are compared by [`distances`], two by two.
const COMPARED: u64 = 400;

/// How far the dot of a violation appears from where it would be, of 224.
const TELEPORTS: [f64; 4] = [10.0, 20.0, 40.0, 80.0];

/// Act with a world model, and count how often the goal is reached.
#[derive(clap::Args)]
pub struct Evaluate {
    /// Folder of a model that `webjepa world` trained.
    model_dir: PathBuf,
    /// What acts.
    #[arg(long, value_enum, default_value = "model")]
    against: Actor,
    /// Episodes: pairs of a start and a goal.
    #[arg(long, default_value_t = 100)]
    pairs: u64,
    /// The first pair, and what decides samples. Pairs from 0 to 2³² − 1 are in no recording.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps of the environment in which the goal must be reached.
    #[arg(long, default_value_t = 150)]
    budget: usize,
    /// How to search: the cross-entropy method (cem), path integrals (mppi), along the gradient of the cost (gradient).
    #[arg(long, default_value = "cem", value_parser = kind)]
    planner: Kind,
    /// Action blocks of a plan.
    #[arg(long, default_value_t = 5)]
    horizon: usize,
    /// Sequences of a round; of gradient those that descend.
    #[arg(long, default_value_t = 300)]
    samples: usize,
    /// The cheapest of them, to which the search moves: 30 unless told otherwise; of mppi all.
    #[arg(long)]
    elites: Option<usize>,
    /// What mean and standard deviation keep of themselves in a round of cem.
    #[arg(long, num_args = 2, value_names = ["MEAN", "STD"])]
    momentum: Option<Vec<f64>>,
    /// Of mppi: a sample weighs exp(−(cost − lowest cost) / temperature).
    #[arg(long)]
    temperature: Option<f64>,
    /// Of gradient: what the gradient is multiplied with in a round.
    #[arg(long)]
    rate: Option<f64>,
    /// Rounds.
    #[arg(long, default_value_t = 30)]
    iterations: usize,
    /// Action blocks that are carried out before the next plan.
    #[arg(long, default_value_t = 1)]
    execute: usize,
    /// Standard deviation of the first samples, in that of the actions of the training.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// What a sequence costs: the square distance of its last prediction to the goal (last), or the sum over all (sum).
    #[arg(long, default_value = "last", value_parser = cost)]
    cost: Cost,
    /// Only measure how distances of embeddings and lengths of ways go together.
    #[arg(long)]
    distances: bool,
    /// Only measure how surprised the model is by what cannot happen, against what does: `--pairs` of each kind.
    #[arg(long, conflicts_with = "distances")]
    violations: bool,
    /// Print a line for each pair.
    #[arg(long)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Actor {
    /// The model.
    Model,
    /// The same planner with the model's weights as they were before training.
    Untrained,
    /// Random actions.
    Random,
    /// Straight towards the goal, as if there were no wall.
    Straight,
    /// Who knows the way.
    Expert,
}

/// A model and what is needed to act with it.
struct Agent {
    model: WorldModel,
    processor: Processor,
    side: usize,
    scale: ActionScale,
    planner: Planner,
    cost: Cost,
    execute: usize,
}

fn kind(name: &str) -> Result<Kind, String> {
    match name {
        "cem" => Ok(Kind::Cem),
        "mppi" => Ok(Kind::Mppi),
        "gradient" => Ok(Kind::Gradient),
        _ => Err("use cem, mppi or gradient".into()),
    }
}

fn cost(name: &str) -> Result<Cost, String> {
    match name {
        "last" => Ok(Cost::Last),
        "sum" => Ok(Cost::Sum),
        _ => Err("use last or sum".into()),
    }
}

/// Runs the command.
pub fn run(arguments: &Evaluate) -> Result<()> {
    let about = About::read(&arguments.model_dir)?;
    let mut place = environment(&about.environment, about.repeat, arguments.budget)?;
    let agent = match arguments.against {
        Actor::Model | Actor::Untrained => Some(Agent::load(arguments, &about, &place)?),
        Actor::Random | Actor::Straight | Actor::Expert => None,
    };
    if arguments.distances {
        let agent = agent.ok_or_else(|| {
            Error::BadInput("distances are those of a model: leave out --against".into())
        })?;
        return distances(&agent, &mut place);
    }
    if arguments.violations {
        let agent = agent.ok_or_else(|| {
            Error::BadInput("surprise is that of a model: leave out --against".into())
        })?;
        return violations(&agent, &mut place, arguments.seed, arguments.pairs);
    }
    let (mut reached, mut steps, mut planned) = (0, 0, Vec::new());
    for seed in arguments.seed..arguments.seed + arguments.pairs {
        place.reset(seed);
        let start = place.inner().at();
        let outcome = match &agent {
            Some(agent) => agent.episode(&mut place, seed, &mut planned)?,
            None => unaided(arguments.against, &mut place, seed)?,
        };
        reached += u64::from(outcome.0);
        steps += outcome.1;
        if arguments.verbose {
            let goal = place.inner().goal();
            println!(
                "{}",
                json!({ "pair": seed, "start": start, "goal": goal, "end": place.state(), "reached": outcome.0, "steps": outcome.1 })
            );
        }
    }
    let plans = planned.len();
    println!(
        "{}",
        json!({
            "pairs": arguments.pairs,
            "reached": reached,
            "meanSteps": steps as f64 / arguments.pairs as f64,
            "plans": plans,
            "planMilliseconds": planned.iter().sum::<f64>() / plans.max(1) as f64,
        })
    );
    Ok(())
}

/// An episode without a model: whether the goal is reached, and in how many decisions.
fn unaided(actor: Actor, place: &mut Repeated<TwoRooms>, seed: u64) -> Result<(bool, usize)> {
    let mut explorer = Explorer::new(Policy::Held(4), place.action_size(), seed, 0);
    for step in 1.. {
        let action = match actor {
            Actor::Straight => place.inner().straight(),
            Actor::Expert => place.expert(),
            _ => explorer.act().to_vec(),
        };
        let outcome = place.step(&action)?;
        if outcome.terminated || outcome.truncated {
            return Ok((outcome.terminated, step));
        }
    }
    Ok((false, 0))
}

impl Agent {
    fn load(arguments: &Evaluate, about: &About, place: &impl Environment) -> Result<Self> {
        let device = pollster::block_on(Backend::Cpu.device())?;
        let model = Model {
            model_dir: arguments.model_dir.clone(),
            config: None,
            encoder: EncoderChoice::default(),
        };
        let mut opened = model.open(true, false)?;
        let config = opened.config;
        let block = config.lewm.as_ref().map_or(0, |lewm| lewm.action_size);
        if block == 0 || !block.is_multiple_of(place.action_size()) {
            return Err(Error::BadConfig(format!(
                "{} is no world model of actions of {} numbers",
                arguments.model_dir.display(),
                place.action_size()
            )));
        }
        let model = if arguments.against == Actor::Untrained {
            let options = json!({ "model": config, "objective": "lewm", "batchSize": 2, "seed": arguments.seed });
            let recipe = Options::from_json(&options.to_string())?.recipe(None)?;
            Trainer::new(recipe, &device)?.world_model()?
        } else {
            let mut parameters = Parameters::new(device.clone(), Precision::F32);
            assemble(opened.plan, &mut opened.files, |piece| {
                parameters.put(piece)
            })?;
            WorldModel::new(&config, Precision::F32, &device, &mut parameters)?
        };
        // Actions go from −1 to 1, and are in units of their deviation here.
        let axis = |i: usize| AxisOptions {
            limit: Some(1.0 / about.action_scale.std[i % place.action_size()]),
            ..AxisOptions::default()
        };
        let options = PlanOptions {
            planner: arguments.planner,
            horizon: Some(arguments.horizon),
            samples: Some(arguments.samples),
            elites: arguments.elites,
            iterations: Some(arguments.iterations),
            momentum: arguments.momentum.as_ref().map(|m| [m[0], m[1]]),
            temperature: arguments.temperature,
            rate: arguments.rate,
            scale: Some(arguments.scale),
            axes: Some((0..block).map(axis).collect()),
            ..PlanOptions::default()
        };
        let planner = options.planner(Cem::lewm(block), model.rate())?;
        if !(1..=arguments.horizon).contains(&arguments.execute) {
            return Err(Error::BadConfig(format!(
                "of a plan of {} action blocks 1 to all are carried out, not {}",
                arguments.horizon, arguments.execute
            )));
        }
        Ok(Self {
            side: config.image_size[0],
            model,
            processor: opened.processor,
            scale: about.scale()?,
            planner,
            cost: arguments.cost,
            execute: arguments.execute,
        })
    }

    /// `[d]`.
    fn encode(&self, picture: &[u8]) -> Result<Tensor<1>> {
        let view = ImageView::from_u8(picture, self.side, self.side, 3);
        let pictures = Pictures {
            pixels: self.processor.apply(&view)?,
            batch: 1,
            frames: 1,
            size: [self.side; 2],
        };
        let embedding = self.model.encode(&pictures)?;
        let [_, d] = embedding.dims();
        Ok(ops::reshaped(embedding, [d]))
    }

    /// The embedding of what is seen now.
    fn seen(&self, place: &Repeated<TwoRooms>) -> Result<Tensor<1>> {
        self.encode(&place.observe(self.side)?)
    }

    /// Plans and acts until the goal is reached or the time is over: which of both, and after how many decisions.
    fn episode(
        &self,
        place: &mut Repeated<TwoRooms>,
        seed: u64,
        planned: &mut Vec<f64>,
    ) -> Result<(bool, usize)> {
        let goal = Goal {
            embedding: self.encode(&place.observe_goal(self.side)?)?,
            cost: self.cost,
        };
        let size = place.action_size();
        let block = self.planner.space().axes.len();
        let mut start: Option<Vec<f64>> = None;
        let mut random = Stream::new(seed, "plan", 0);
        let mut done = 0;
        loop {
            let context = context_of(self.seen(place)?);
            let clock = Instant::now();
            let cost = async |candidates: &Candidates| {
                let slopes = self.planner.descends();
                let turn = async || Ok(());
                self.model
                    .costed(&context, &goal, candidates, slopes, turn)
                    .await
            };
            let plan = self.planner.plan(start.as_deref(), &mut random, cost);
            let plan = pollster::block_on(plan)?;
            planned.push(1e3 * clock.elapsed().as_secs_f64());
            let actions: Vec<f32> = plan.actions.iter().map(|&v| v as f32).collect();
            let actions = self.scale.unscaled(&actions[..self.execute * block])?;
            for action in actions.chunks_exact(size) {
                let action: Vec<f64> = action.iter().map(|&v| v.into()).collect();
                let outcome = place.step(&action)?;
                done += 1;
                if outcome.terminated || outcome.truncated {
                    return Ok((outcome.terminated, done));
                }
            }
            start = Some(plan.shifted(self.execute));
        }
    }
}

/// One frame, and nothing known of what was before.
fn context_of(now: Tensor<1>) -> Context {
    let [d] = now.dims();
    Context {
        embeddings: ops::reshaped(now, [1, d]),
        actions: Vec::new(),
        states: Vec::new(),
    }
}

/// How far from its prediction a model finds what cannot happen, and what does, after the same actions from the same starts.
fn violations(agent: &Agent, place: &mut Repeated<TwoRooms>, first: u64, pairs: u64) -> Result<()> {
    let (times, goal) = (place.times(), place.inner().goal());
    let mut seen = |at| {
        place.inner_mut().place(at, goal)?;
        agent.seen(place)
    };
    let teleports = TELEPORTS.map(Breach::Teleport);
    for kind in [Breach::Wall].into_iter().chain(teleports) {
        let (mut possible, mut impossible, mut away) = (Vec::new(), Vec::new(), Vec::new());
        for seed in first..first + pairs {
            let drawn = breach(kind, times, seed)?;
            let context = context_of(seen(drawn.start)?);
            let candidates = Candidates {
                data: agent.scale.scaled(&drawn.action.map(|v| v as f32))?,
                count: 1,
                horizon: 1,
                action: drawn.action.len(),
            };
            let [expected] = agent
                .model
                .rollout(&context, &candidates, None)?
                .try_into()
                .expect("as many predictions as actions");
            let expected = pollster::block_on(read_values(expected))?;
            let mut surprise = |at| -> Result<f64> {
                Ok(square(
                    &expected,
                    &pollster::block_on(read_values(seen(at)?))?,
                ))
            };
            possible.push(surprise(drawn.possible)?);
            impossible.push(surprise(drawn.impossible)?);
            away.push(distance(drawn.possible, drawn.impossible));
        }
        let compared = Compared::of(&impossible, &possible);
        println!(
            "{}",
            json!({
                "violation": match kind {
                    Breach::Wall => "wall",
                    Breach::Teleport(_) => "teleport",
                },
                "medianDistance": median(&away),
                "surprise": compared,
            })
        );
    }
    Ok(())
}

fn square(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// How square distances of embeddings grow with the length of the way between two places, and how near rollouts stay to what comes.
fn distances(agent: &Agent, place: &mut Repeated<TwoRooms>) -> Result<()> {
    let embed = |place: &Repeated<TwoRooms>| -> Result<Vec<f32>> {
        pollster::block_on(read_values(agent.seen(place)?))
    };
    let mut places = Vec::new();
    for seed in 0..COMPARED {
        place.reset(seed);
        places.push((place.inner().at(), embed(place)?));
    }
    const BIN: f64 = 20.0;
    let mut bins: Vec<(f64, f64)> = Vec::new();
    let mut pairs = Vec::new();
    for (i, (at, one)) in places.iter().enumerate() {
        for (to, other) in &places[..i] {
            let (way, apart) = (path_length(*at, *to), square(one, other));
            let bin = (way / BIN) as usize;
            if bins.len() <= bin {
                bins.resize(bin + 1, (0.0, 0.0));
            }
            bins[bin].0 += 1.0;
            bins[bin].1 += apart;
            pairs.push((way, apart.sqrt()));
        }
    }
    let mean =
        |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
    let (a, b) = (mean(&|p| p.0), mean(&|p| p.1));
    let covariance = mean(&|p| (p.0 - a) * (p.1 - b));
    let deviation = (mean(&|p| (p.0 - a).powi(2)) * mean(&|p| (p.1 - b).powi(2))).sqrt();
    // Predictions against what comes, along random actions.
    let horizon = agent.planner.space().horizon;
    let mut errors = vec![0.0; horizon];
    const EPISODES: u64 = 50;
    let size = place.action_size();
    for seed in 0..EPISODES {
        place.reset(seed);
        let context = context_of(agent.seen(place)?);
        let mut explorer = Explorer::new(Policy::Held(4), size, seed, 0);
        let (mut actions, mut seen) = (Vec::new(), Vec::new());
        for _ in 0..horizon {
            for _ in 0..agent.planner.space().axes.len() / size {
                let action = explorer.act();
                actions.extend(action.iter().map(|&v| v as f32));
                place.step(action)?;
            }
            seen.push(embed(place)?);
        }
        let candidates = Candidates {
            data: agent.scale.scaled(&actions)?,
            count: 1,
            horizon,
            action: agent.planner.space().axes.len(),
        };
        let steps = agent.model.rollout(&context, &candidates, None)?;
        for ((error, step), seen) in errors.iter_mut().zip(steps).zip(seen) {
            *error += square(&pollster::block_on(read_values(step))?, &seen) / EPISODES as f64;
        }
    }
    let bins: Vec<f64> = bins
        .iter()
        .map(|(n, sum)| (sum / n * 100.0).round() / 100.0)
        .collect();
    println!(
        "{}",
        json!({ "correlation": covariance / deviation, "squareDistanceBy20": bins, "rolloutErrors": errors })
    );
    Ok(())
}
