//! `webjepa world`: explores an environment and trains a world model on what was seen, from pixels only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;
use webjepa::device::Backend;
use webjepa::environment::{Policy, Repeated, Replay, TwoRooms, collect};
use webjepa::train::trainer::Trainer;
use webjepa::world::ActionScale;
use webjepa::{Error, Result};

use super::run::{Run, read};
use super::{parsed, unwritable};

/// What a world model was trained in, beside its weights.
const ABOUT: &str = "world.json";
/// Steps between two lines of the log.
const LOG_EVERY: u64 = 50;

/// Explore an environment, and train a world model on what is seen.
#[derive(clap::Args)]
pub struct World {
    #[command(flatten)]
    run: Run,
    /// Where to act: two-rooms.
    #[arg(long, default_value = "two-rooms")]
    environment: String,
    /// Carry out each action so many times, and look only then.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// How to explore: uniform, or held-N for actions that are kept for 1 to N steps.
    #[arg(long, default_value = "held-4", value_parser = parsed::<Policy>)]
    policy: Policy,
    /// Episodes to record.
    #[arg(long, default_value_t = 500)]
    episodes: usize,
    /// Actions of an episode.
    #[arg(long, default_value_t = 40)]
    actions: usize,
    /// Recordings to learn from, in place of new ones; where there is no such file, the new ones are kept in it.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Save after every so many steps, and at the end.
    #[arg(long, default_value_t = 1000)]
    save_every: u64,
}

/// What is to be known about a world model in order to act with it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Name of the environment.
    pub environment: String,
    /// How often each action is carried out.
    pub repeat: usize,
    /// How actions are scaled, number by number.
    pub action_scale: Statistics,
}

/// Of the numbers of an action, as `ActionScale.fromJSON` of the TypeScript library takes them.
#[derive(Serialize, Deserialize)]
pub struct Statistics {
    /// One for each.
    pub mean: Vec<f64>,
    /// One for each.
    pub std: Vec<f64>,
}

impl About {
    /// Reads what lies beside a model.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(ABOUT);
        let text = super::text(&path)?;
        serde_json::from_str(&text)
            .map_err(|e| Error::BadConfig(format!("{} cannot be read: {e}", path.display())))
    }

    /// How actions are scaled.
    pub fn scale(&self) -> Result<ActionScale> {
        let Statistics { mean, std } = &self.action_scale;
        ActionScale::new(mean.clone(), std.clone())
    }
}

/// The environment of a name, at episodes of `longest` steps.
pub fn environment(name: &str, repeat: usize, longest: usize) -> Result<Repeated<TwoRooms>> {
    match name {
        "two-rooms" => Repeated::new(TwoRooms::new(longest), repeat),
        _ => Err(Error::BadInput(format!(
            "there is no environment {name:?}: use \"two-rooms\""
        ))),
    }
}

/// Runs the command.
pub fn run(arguments: &World) -> Result<()> {
    let device = pollster::block_on(Backend::Cpu.device())?;
    let mut trainer = arguments.run.trainer(&device, |options| {
        Trainer::new(options.recipe(None)?, &device)
    })?;
    let mut log = arguments.run.log()?;
    let replay = recordings(arguments, &trainer)?;
    let Some(lewm) = trainer.recipe().model.lewm.clone() else {
        return Err(Error::BadConfig(
            "the options describe no world model: use the objective \"lewm\"".into(),
        ));
    };
    let action = replay.action_size();
    let skip = lewm.action_size / action;
    if skip * action != lewm.action_size {
        return Err(Error::BadConfig(format!(
            "action blocks of {} numbers are not of whole actions, which have {action}: set `actionSize` to a multiple",
            lewm.action_size
        )));
    }
    let scale = replay.scale()?;
    let windows = replay.windows(lewm.history, skip, &scale)?;
    log.write(&json!({ "episodes": replay.episodes().len(), "windows": windows.len() }))?;
    let start = Instant::now();
    let last = trainer.recipe().schedule.steps;
    while trainer.step_count() < last {
        let mut batch = trainer.new_batch();
        for window in trainer.next_indices(windows.len())? {
            for frame in windows.frames(window) {
                trainer.push(&mut batch, &frame)?;
            }
            batch.act(windows.actions(window));
        }
        let report = pollster::block_on(trainer.step(&batch))?;
        let done = report.step;
        if done.is_multiple_of(LOG_EVERY) || done == last {
            let mut line = serde_json::to_value(&report).unwrap_or_default();
            line["seconds"] = start.elapsed().as_secs_f64().into();
            log.write(&line)?;
        }
        if done.is_multiple_of(arguments.save_every) || done == last {
            arguments.run.save(&trainer)?;
        }
    }
    let statistics = scale.statistics();
    let (mean, std) = statistics.split_at(action);
    let about = About {
        environment: arguments.environment.clone(),
        repeat: arguments.repeat,
        action_scale: Statistics {
            mean: mean.to_vec(),
            std: std.to_vec(),
        },
    };
    let original = pollster::block_on(trainer.export_original())?;
    let folder = arguments.run.write("model", &original)?;
    let path = folder.join(ABOUT);
    let text = serde_json::to_string_pretty(&about).unwrap_or_default() + "\n";
    fs::write(&path, text).map_err(|e| unwritable(&path, &e))
}

/// Those of the file, or new ones.
fn recordings(arguments: &World, trainer: &Trainer) -> Result<Replay> {
    let recipe = trainer.recipe();
    let [side, width] = recipe.model.image_size;
    if side != width {
        return Err(Error::BadConfig(format!(
            "pictures of environments are square, and those of the model have {side} × {width} pixels"
        )));
    }
    if let Some(path) = arguments.replay.as_ref().filter(|path| path.exists()) {
        let replay = Replay::load(&read(path)?)?;
        return match replay.side() == side {
            true => Ok(replay),
            false => Err(Error::BadInput(format!(
                "{} has pictures of {} pixels on a side, and the model takes {side}",
                path.display(),
                replay.side()
            ))),
        };
    }
    let mut place = environment(&arguments.environment, arguments.repeat, usize::MAX)?;
    let lengths = [arguments.episodes, arguments.actions];
    let replay = collect(&mut place, arguments.policy, lengths, side, recipe.seed)?;
    if let Some(path) = &arguments.replay {
        fs::write(path, replay.save()?).map_err(|e| unwritable(path, &e))?;
    }
    Ok(replay)
}
