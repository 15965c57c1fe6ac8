//! `webjepa pretrain`: trains an encoder on labelled pictures, or on clips of them in motion, without their labels, and measures with
//! them what it learns.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::json;
use webjepa::checkpoint::{EncoderChoice, OTHER, assemble};
use webjepa::config::ModelConfig;
use webjepa::data::moving::{DIRECTIONS, Moving};
use webjepa::data::{Dataset, Labelled, Picture};
use webjepa::device::{Backend, Precision, read_values};
use webjepa::input::{ImageView, Processor};
use webjepa::model::{Encoder, Pictures};
use webjepa::nn::{Parameters, ops};
use webjepa::probe::Samples;
use webjepa::probe::hog::hog;
use webjepa::probe::knn::{Knn, Vote};
use webjepa::probe::linear::{LinearProbe, Ridge};
use webjepa::train::recipe::Options;
use webjepa::train::trainer::{Loaded, Trainer};
use webjepa::{Error, Result};

use super::Model;
use super::run::{Measured, Run};

/// Pictures whose embeddings are computed together.
const AT_ONCE: usize = 32;
/// Layers that the second linear probe sees.
const LAST_LAYERS: usize = 4;
/// Decides how pictures move; the same in every run, as it decides the labels.
const MOTION_SEED: u64 = 0;
/// The HOG-like baseline has about so many cells along a side, of four pixels at least.
const HOG_CELLS: usize = 8;

/// Train an encoder on pictures, without labels, and measure its embeddings with them.
#[derive(clap::Args)]
pub struct Pretrain {
    /// A folder with a folder of pictures for each class, a .tar of one, or a folder with the files of MNIST.
    data: PathBuf,
    #[command(flatten)]
    run: Run,
    /// Begin with the weights of a checkpoint (a folder, or a .safetensors file): its encoders, and its predictor where the
    /// objective has one. The options may give the sizes of a predictor that it lacks in `model`.
    #[arg(long)]
    from: Option<PathBuf>,
    #[command(flatten)]
    measured: Measured,
    /// Labelled training pictures to measure with, at most.
    #[arg(long, default_value_t = 10_000)]
    measure_with: usize,
    /// Pictures to measure on, at most; all of them unless given.
    #[arg(long)]
    measure_on: Option<usize>,
    /// Measure on the validation pictures, not on the test. Where the set has none, a part of the training pictures is kept
    /// apart for it.
    #[arg(long)]
    validation: bool,
    /// Set the pictures in motion: clips of so many frames on a canvas of the model's size, of which also the direction of motion is
    /// measured. A model of clips has as many frames; one of pictures is trained on single frames, and its embeddings of a clip's frames
    /// are averaged.
    #[arg(long)]
    moving: Option<usize>,
    /// Also measure raw pixels and HOG-like features.
    #[arg(long)]
    baselines: bool,
}

/// Runs the command.
pub fn run(arguments: &Pretrain) -> Result<()> {
    let device = pollster::block_on(Backend::Cpu.device())?;
    let data = Dataset::read(&arguments.data, 0)?;
    let classes = data.classes.len();
    let (pictures, measured) = match (arguments.validation, data.validation) {
        (false, _) => (data.train, data.test),
        (true, Some(validation)) => (data.train, validation),
        (true, None) => data.train.split(classes, 0),
    };
    let from = arguments.from.as_deref();
    let begun = |options| begun(from, options, &device);
    let mut trainer = arguments.run.trainer(&device, begun)?;
    let model = &trainer.recipe().model;
    let moving = match (arguments.moving, model.frames) {
        (None, 1) => None,
        (Some(frames), native) if native > 1 && frames != native => {
            return Err(Error::BadInput(format!(
                "the model takes clips of {native} frames: give --moving {native}"
            )));
        }
        (given, native) => Some(Moving {
            frames: given.unwrap_or(native),
            canvas: model.image_size,
            seed: MOTION_SEED,
        }),
    };
    let probe = Probe {
        classes,
        train: subset(&pictures, arguments.measure_with),
        test: subset(&measured, arguments.measure_on.unwrap_or(measured.len())),
        moving,
    };
    if arguments.baselines && moving.is_some() {
        return Err(Error::BadInput("there are no baselines of clips".into()));
    }
    let mut log = arguments.run.log()?;
    if arguments.baselines {
        for (name, accuracy) in baselines(&probe, &trainer.recipe().model)? {
            log.write(
                &json!({ "baseline": name, "knn": accuracy.knn, "linear": accuracy.linear }),
            )?;
        }
    }
    arguments.measured.train(
        &arguments.run,
        &mut trainer,
        &mut log,
        |trainer, batch| {
            for index in trainer.next_indices(pictures.len())? {
                let (frames, _) = frames_of(&pictures.pictures[index], index, moving.as_ref())?;
                // A model of pictures takes one of them, another in each step.
                let native = trainer.recipe().model.frames;
                let first = (trainer.step_count() as usize + index) % (frames.len() - native + 1);
                for frame in &frames[first..first + native] {
                    trainer.push(batch, &frame.view())?;
                }
            }
            Ok(())
        },
        |trainer| {
            let (accuracy, direction) = probe.embeddings(trainer)?;
            let mut line = json!({
                "knn": accuracy.knn, "linear": accuracy.linear, "linearLast4": accuracy.linear_last4,
            });
            if let Some(direction) = direction {
                line["direction"] = json!({
                    "knn": direction.knn, "linear": direction.linear, "linearLast4": direction.linear_last4,
                });
            }
            Ok(line)
        },
    )?;
    let original = pollster::block_on(trainer.export_original())?;
    arguments.run.write("original", &original)?;
    match pollster::block_on(trainer.export_hugging_face()) {
        Ok(files) => arguments.run.write("hf", &files).map(drop),
        // transformers does not have every system.
        Err(Error::Unsupported(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is shown of a picture: its clip and the direction in which it moves, or itself.
fn frames_of<'a>(
    picture: &'a Picture,
    number: usize,
    moving: Option<&Moving>,
) -> Result<(Cow<'a, [Picture]>, Option<usize>)> {
    Ok(match moving {
        None => (Cow::Borrowed(std::slice::from_ref(picture)), None),
        Some(moving) => {
            let (clip, direction) = moving.clip(picture, number)?;
            (Cow::Owned(clip), Some(direction))
        }
    })
}

/// A new run: from fresh weights, or from those of a checkpoint.
fn begun(from: Option<&Path>, mut options: Options, device: &Device) -> Result<Trainer> {
    let Some(from) = from else {
        return Trainer::new(options.recipe(None)?, device);
    };
    let model = Model {
        model_dir: from.to_path_buf(),
        config: None,
        encoder: EncoderChoice::default(),
    };
    let mut opened = model.open(true, true)?;
    let mut config = opened.config;
    if let Some(wanted) = options.model.take() {
        // The checkpoint's own predictor has its own sizes.
        config.predictor = config
            .predictor
            .or(ModelConfig::from_json(&wanted.to_string())?.predictor);
    }
    let is_target = opened.plan.is_target();
    let mut parameters = Parameters::new(device.clone(), Precision::F32);
    assemble(opened.plan, &mut opened.files, |piece| {
        parameters.put(piece)
    })?;
    let loaded = Loaded {
        other: Some(parameters.split(OTHER)).filter(|other| !other.is_empty()),
        parameters,
        is_target,
        predictor: opened.predictor,
    };
    Trainer::from_loaded(options.recipe(Some(config))?, device, loaded)
}

/// Shares of test pictures whose class was right.
struct Accuracy {
    knn: f64,
    linear: f64,
    /// Of a linear probe on the means of the last four layers, one after the other: I-JEPA's other protocol.
    linear_last4: Option<f64>,
}

/// Labelled pictures that embeddings are measured with.
struct Probe {
    classes: usize,
    train: Labelled,
    test: Labelled,
    moving: Option<Moving>,
}

impl Probe {
    /// How well the class is told, and the direction of motion where there is some.
    fn embeddings(&self, trainer: &Trainer) -> Result<(Accuracy, Option<Accuracy>)> {
        let recipe = trainer.recipe();
        let device = pollster::block_on(Backend::Cpu.device())?;
        let mut parameters = trainer.encoder_network().fixed(&device, Precision::F32);
        let encoder = Encoder::new(&recipe.model, Precision::F32, &device, &mut parameters)?;
        let normalization = &recipe.normalization;
        // Pictures and canvases are of the model's size, and are not cropped.
        let processor = Processor::default_for(recipe.model.image_size)?
            .with_statistics(&normalization.mean, &normalization.std)?;
        let layers = recipe.model.layers.min(LAST_LAYERS);
        let d = recipe.model.hidden_size;
        // For each of the last layers, `[pictures, d]`; and the directions of motion.
        let embed = |of: &Labelled, first: usize| -> Result<(Vec<Vec<f32>>, Vec<usize>)> {
            let (mut all, mut directions) = (vec![Vec::new(); layers], Vec::new());
            for (chunk, pictures) in of.pictures.chunks(AT_ONCE).enumerate() {
                let mut pixels = Vec::new();
                let mut frames = 1;
                for (i, picture) in pictures.iter().enumerate() {
                    let number = first + chunk * AT_ONCE + i;
                    let (clip, direction) = frames_of(picture, number, self.moving.as_ref())?;
                    directions.extend(direction);
                    frames = clip.len();
                    for frame in clip.iter() {
                        pixels.extend(processor.apply(&frame.view())?);
                    }
                }
                let native = recipe.model.frames;
                let batch = Pictures {
                    pixels,
                    batch: pictures.len() * frames / native,
                    frames: native,
                    size: recipe.model.image_size,
                };
                for (all, tokens) in all.iter_mut().zip(encoder.forward(&batch, None, layers)?) {
                    let pooled = pollster::block_on(read_values(ops::pooled(tokens)))?;
                    all.extend(averaged(&pooled, frames / native, d));
                }
            }
            Ok((all, directions))
        };
        let (train, ways) = embed(&self.train, 0)?;
        // Numbers that no training picture has.
        let (test, tested_ways) = embed(&self.test, 1 << 32)?;
        let (all_train, all_test) = (joined(&train, d), joined(&test, d));
        let of = |labels: Labels| -> Result<Accuracy> {
            let whole = labels.accuracy(&all_train, &all_test, layers * d)?;
            Ok(Accuracy {
                linear_last4: Some(whole.linear),
                ..labels.accuracy(&train[layers - 1], &test[layers - 1], d)?
            })
        };
        let directions = Labels {
            classes: DIRECTIONS,
            train: &ways,
            test: &tested_ways,
        };
        let direction = self.moving.map(|_| of(directions)).transpose()?;
        Ok((of(self.labels())?, direction))
    }

    fn labels(&self) -> Labels<'_> {
        Labels {
            classes: self.classes,
            train: &self.train.labels,
            test: &self.test.labels,
        }
    }
}

/// What is told from embeddings.
#[derive(Clone, Copy)]
struct Labels<'a> {
    classes: usize,
    train: &'a [usize],
    test: &'a [usize],
}

impl Labels<'_> {
    fn accuracy(&self, train: &[f32], test: &[f32], d: usize) -> Result<Accuracy> {
        let samples = Samples {
            features: train,
            d,
            labels: self.train,
            classes: self.classes,
        };
        let (linear, _) = LinearProbe::ridge(&samples, Ridge::CrossValidated)?;
        Ok(Accuracy {
            knn: Knn::new(samples)?
                .predict(test, Vote::default())?
                .accuracy(self.test),
            linear: linear.predict(test)?.accuracy(self.test),
            linear_last4: None,
        })
    }
}

/// Means of `count` rows of width `d` each.
fn averaged(rows: &[f32], count: usize, d: usize) -> Vec<f32> {
    if count == 1 {
        return rows.to_vec();
    }
    let groups = rows.chunks_exact(count * d);
    let mean = |group: &[f32], i: usize| {
        group.chunks_exact(d).map(|row| row[i]).sum::<f32>() / count as f32
    };
    groups
        .flat_map(|group| (0..d).map(move |i| mean(group, i)))
        .collect()
}

/// Rows of width `d` of several matrices, one after the other.
fn joined(layers: &[Vec<f32>], d: usize) -> Vec<f32> {
    let rows = layers[0].len() / d;
    let row = |row: usize| layers.iter().flat_map(move |l| &l[row * d..(row + 1) * d]);
    (0..rows).flat_map(row).copied().collect()
}

/// The first `count` of the pictures at even distances.
fn subset(of: &Labelled, count: usize) -> Labelled {
    let step = of.len().div_ceil(count.max(1)).max(1);
    Labelled {
        pictures: of.pictures.iter().step_by(step).cloned().collect(),
        labels: of.labels.iter().step_by(step).copied().collect(),
    }
}

/// Raw pixels, and HOG-like features, of pictures as the model sees them.
fn baselines(probe: &Probe, model: &ModelConfig) -> Result<Vec<(String, Accuracy)>> {
    let [height, width] = model.image_size;
    let processor = Processor::default_for(model.image_size)?
        .with_statistics(&vec![0.0; model.channels], &vec![1.0; model.channels])?;
    let of = |set: &Labelled, features: &dyn Fn(&[f32]) -> Result<Vec<f32>>| -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for picture in &set.pictures {
            all.extend(features(&processor.apply(&picture.view())?)?);
        }
        Ok(all)
    };
    let mut measured = Vec::new();
    let mut add = |name: String, features: &dyn Fn(&[f32]) -> Result<Vec<f32>>| -> Result<()> {
        let (train, test) = (of(&probe.train, features)?, of(&probe.test, features)?);
        let d = train.len() / probe.train.len();
        measured.push((name, probe.labels().accuracy(&train, &test, d)?));
        Ok(())
    };
    // Ridge regression costs the cube of the smaller one of samples and features: large pictures are averaged to 32 × 32.
    let step = height.div_ceil(32).max(width.div_ceil(32));
    add(
        format!("pixels, {}×{}", height / step, width / step),
        &|planar| Ok(reduced(planar, [height, width], step)),
    )?;
    let cell = (height.min(width) / HOG_CELLS).max(4);
    add(format!("HOG, cells of {cell}"), &|planar| {
        let channels = planar.len() / (height * width);
        let bytes: Vec<u8> = (0..height * width)
            .flat_map(|i| (0..channels).map(move |c| planar[c * height * width + i]))
            .map(|v| (255.0 * v).round() as u8)
            .collect();
        hog(&ImageView::from_u8(&bytes, width, height, channels), cell)
    })?;
    Ok(measured)
}

/// Means of `step × step` pixels.
fn reduced(planar: &[f32], [height, width]: [usize; 2], step: usize) -> Vec<f32> {
    let (rows, columns) = (height / step, width / step);
    let share = ((step * step) as f32).recip();
    let mut out = Vec::new();
    for plane in planar.chunks_exact(height * width) {
        for row in 0..rows {
            for column in 0..columns {
                let inside = (0..step * step)
                    .map(|i| plane[(row * step + i / step) * width + column * step + i % step]);
                out.push(inside.sum::<f32>() * share);
            }
        }
    }
    out
}
