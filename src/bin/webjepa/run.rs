//! What every run of training has: options, a folder of its own, a log.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use webjepa::train::recipe::Options;
use webjepa::train::save::Files;
use webjepa::train::trainer::{Batch, Trainer};
use webjepa::{Error, Result};

use super::unwritable;

/// Steps between two lines of the log of a run that is measured.
const LOG_EVERY: u64 = 100;

/// Arguments of a run.
#[derive(clap::Args)]
pub struct Run {
    /// Options of the run as a JSON file, with the names that the TypeScript library has: model, objective, batchSize, …
    #[arg(long)]
    options: PathBuf,
    /// Where to write the run (run.safetensors), the log (log.jsonl) and the model.
    #[arg(long)]
    out: PathBuf,
    /// Overrides the seed of the options.
    #[arg(long)]
    seed: Option<u64>,
    /// Overrides the steps of the options' schedule.
    #[arg(long)]
    steps: Option<u64>,
    /// Go on from the run in the output folder.
    #[arg(long)]
    resume: bool,
}

impl Run {
    /// The run that was saved, or that `begun` makes of the options. Makes the folder.
    pub fn trainer(
        &self,
        device: &Device,
        begun: impl FnOnce(Options) -> Result<Trainer>,
    ) -> Result<Trainer> {
        fs::create_dir_all(&self.out).map_err(|e| unwritable(&self.out, &e))?;
        match self.resume {
            true => Trainer::resume(&read(&self.saved())?, device),
            false => begun(self.options()?),
        }
    }

    /// The options file with what the command line overrides.
    fn options(&self) -> Result<Options> {
        let path = &self.options;
        let text = fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
        let mut options: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|e| Error::BadConfig(format!("{}: {e}", path.display())))?;
        if let Some(seed) = self.seed {
            options.insert("seed".into(), seed.into());
        }
        if let Some(steps) = self.steps {
            let schedule = options.entry("schedule").or_insert_with(|| json!({}));
            schedule["steps"] = steps.into();
        }
        Options::from_json(&Value::Object(options).to_string())
    }

    fn saved(&self) -> PathBuf {
        self.out.join("run.safetensors")
    }

    /// Writes the run beside the last one and then puts it in its place, so that one of the two is always whole.
    pub fn save(&self, trainer: &Trainer) -> Result<()> {
        let path = self.saved();
        let bytes = pollster::block_on(trainer.save())?;
        let partial = path.with_extension("partial");
        fs::write(&partial, bytes).map_err(|e| unwritable(&partial, &e))?;
        fs::rename(&partial, &path).map_err(|e| unwritable(&path, &e))
    }

    /// The log; that of the run so far goes on.
    pub fn log(&self) -> Result<Log> {
        let path = self.out.join("log.jsonl");
        let file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .append(self.resume)
            .truncate(!self.resume)
            .open(&path);
        file.map(Log).map_err(|e| unwritable(&path, &e))
    }

    /// Writes the files of a model into a folder of the run's, which it gives.
    pub fn write(&self, name: &str, files: &Files) -> Result<PathBuf> {
        let folder = self.out.join(name);
        fs::create_dir_all(&folder).map_err(|e| unwritable(&folder, &e))?;
        for (name, bytes) in files {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(|e| unwritable(&path, &e))?;
        }
        Ok(folder)
    }
}

/// How far a run that is measured on its way goes.
#[derive(clap::Args)]
pub struct Measured {
    /// Stop after so many steps of the schedule.
    #[arg(long)]
    stop_after: Option<u64>,
    /// Measure after every so many steps, and at the start and the end; with --resume and --stop-after 0 nothing else is done.
    #[arg(long, default_value_t = 1000)]
    measure_every: u64,
}

impl Measured {
    /// Trains on the batches that `fill` makes, writes what `measure` gives to the log, and saves the run after it.
    pub fn train(
        &self,
        run: &Run,
        trainer: &mut Trainer,
        log: &mut Log,
        fill: impl Fn(&Trainer, &mut Batch) -> Result<()>,
        measure: impl Fn(&Trainer) -> Result<Value>,
    ) -> Result<()> {
        let steps = trainer.recipe().schedule.steps;
        let last = self.stop_after.unwrap_or(steps).min(steps);
        let start = Instant::now();
        let measure = |trainer: &Trainer, log: &mut Log| -> Result<()> {
            let mut line = measure(trainer)?;
            line["step"] = trainer.step_count().into();
            line["seconds"] = start.elapsed().as_secs_f64().into();
            log.write(&line)
        };
        measure(trainer, log)?;
        while trainer.step_count() < last {
            let mut batch = trainer.new_batch();
            fill(trainer, &mut batch)?;
            let report = pollster::block_on(trainer.step(&batch))?;
            let done = report.step;
            if done.is_multiple_of(LOG_EVERY) || report.warning.is_some() || done == last {
                log.write(&serde_json::to_value(&report).unwrap_or_default())?;
            }
            if done.is_multiple_of(self.measure_every) || done == last {
                measure(trainer, log)?;
                run.save(trainer)?;
            }
        }
        Ok(())
    }
}

/// Lines of JSON in a file and on standard output.
pub struct Log(fs::File);

impl Log {
    /// One line more.
    pub fn write(&mut self, line: &Value) -> Result<()> {
        println!("{line}");
        writeln!(self.0, "{line}")
            .map_err(|e| Error::BadInput(format!("the log cannot be written: {e}")))
    }
}

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::BadInput(format!("{} cannot be read: {error}", path.display()))
}
