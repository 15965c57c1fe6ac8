//! `webjepa film`: trains a V-JEPA on film, without labels, and measures how it is surprised where the film is cut or its frames are out
//! of order.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use webjepa::data::Picture;
use webjepa::data::film::{Clip, Film, Films};
use webjepa::device::{Backend, Precision};
use webjepa::input::Processor;
use webjepa::mask::Masks;
use webjepa::model::predictor::{ContextFrom, predict};
use webjepa::model::{Encoder, Pictures, Predictor};
use webjepa::rng::{Generator, Stream};
use webjepa::train::trainer::Trainer;
use webjepa::{Error, Result};

use super::run::{Measured, Run};
use super::statistics::{Compared, Control};

/// Clips whose surprise is computed together.
const AT_ONCE: usize = 16;
/// Decides what is measured; the same in every run.
const MEASURE_SEED: u64 = 0;

/// Train a V-JEPA on film, and measure its surprise at cuts and at frames out of order.
#[derive(clap::Args)]
pub struct Filmed {
    /// A folder, or a .tar of one, with a folder of frames (JPEG or PNG, named in their order) for each film. Such folders may lie in
    /// folders train and test; else the last quarter of each film is measured with, and not learnt from.
    data: PathBuf,
    #[command(flatten)]
    run: Run,
    /// From one frame of a clip to the next, in frames of the film.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    stride: u32,
    #[command(flatten)]
    measured: Measured,
    /// Clips of each film to measure with, at most.
    #[arg(long, default_value_t = 60)]
    clips: usize,
    /// Which of the model's mask tokens stands for what is to come: the number of the kind of masks that hides the future.
    #[arg(long, default_value_t = 0)]
    mask_index: usize,
}

/// What is done to a clip.
#[derive(Clone, Copy)]
enum Breach {
    /// After its first half another film goes on.
    OtherFilm,
    /// After its first half the same film goes on at another time, whose frames are none of the clip's.
    OtherTime,
    /// Its frames come in another order.
    ClipShuffled,
    /// After its first half frames of the film come in random order.
    FilmShuffled,
}

const BREACHES: [(&str, Breach); 4] = [
    ("cutToOtherFilm", Breach::OtherFilm),
    ("cutToOtherTime", Breach::OtherTime),
    ("clipShuffled", Breach::ClipShuffled),
    ("filmShuffled", Breach::FilmShuffled),
];

/// Runs the command.
pub fn run(arguments: &Filmed) -> Result<()> {
    let device = pollster::block_on(Backend::Cpu.device())?;
    let films = Films::read(&arguments.data)?;
    let mut trainer = arguments.run.trainer(&device, |options| {
        Trainer::new(options.recipe(None)?, &device)
    })?;
    let model = &trainer.recipe().model;
    if !model.is_video() || trainer.predictor_network().is_none() {
        return Err(Error::BadConfig(
            "the options describe no model of clips: use the objective \"vjepa\"".into(),
        ));
    }
    let (frames, stride) = (model.frames, arguments.stride as usize);
    let clips = Clip::all(&films.train, frames, stride);
    let judge = Judge::new(&films.test, &trainer, arguments)?;
    let mut log = arguments.run.log()?;
    log.write(&json!({
        "films": films.train.iter().map(|film| &film.name).collect::<Vec<_>>(),
        "clips": clips.len(), "measuredWith": judge.clips.len(),
    }))?;
    arguments.measured.train(
        &arguments.run,
        &mut trainer,
        &mut log,
        |trainer, batch| {
            for clip in trainer.next_indices(clips.len())? {
                for time in 0..frames {
                    trainer.push(batch, &clips[clip].frame(&films.train, time).view())?;
                }
            }
            Ok(())
        },
        |trainer| judge.measured(trainer),
    )?;
    let original = pollster::block_on(trainer.export_original())?;
    arguments.run.write("original", &original).map(drop)
}

/// Clips that were not learnt from, and what can be done to them.
struct Judge<'a> {
    films: &'a [Film],
    clips: Vec<Clip>,
    frames: usize,
    /// Frames of the first half, which is of whole tubelets.
    half: usize,
    mask_index: usize,
    processor: Processor,
}

impl<'a> Judge<'a> {
    fn new(films: &'a [Film], trainer: &Trainer, arguments: &Filmed) -> Result<Self> {
        let (stride, mask_index) = (arguments.stride as usize, arguments.mask_index);
        let recipe = trainer.recipe();
        let (frames, tubelet) = (recipe.model.frames, recipe.model.tubelet);
        let half = frames / tubelet / 2 * tubelet;
        if half == 0 {
            return Err(Error::BadConfig(format!(
                "a clip of {frames} frames is one tubelet of {tubelet}: nothing comes after it"
            )));
        }
        let normalization = &recipe.normalization;
        let processor = Processor::published_for(&recipe.model)?
            .with_statistics(&normalization.mean, &normalization.std)?;
        let all = Clip::all(films, frames, stride);
        let clips: Vec<Clip> = (0..films.len())
            .flat_map(|film| {
                let of: Vec<Clip> = all.iter().filter(|c| c.film == film).copied().collect();
                let count = of.len().min(arguments.clips);
                (0..count)
                    .map(move |i| of[i * of.len() / count])
                    .collect::<Vec<_>>()
            })
            .collect();
        if clips.is_empty() {
            return Err(Error::BadInput(format!(
                "no film is long enough to measure with clips of {frames} frames, {stride} apart"
            )));
        }
        Ok(Self {
            films,
            clips,
            frames,
            half,
            mask_index,
            processor,
        })
    }

    /// How surprise at each breach compares to surprise at the same clip as it was filmed.
    fn measured(&self, trainer: &Trainer) -> Result<Value> {
        let mut measured = Map::new();
        let filmed: Vec<_> = self.clips.iter().map(|clip| self.shown(clip)).collect();
        let filmed = self.surprise(trainer, &filmed)?;
        for (name, breach) in BREACHES {
            let mut random = Stream::new(MEASURE_SEED, name, 0);
            let (mut possible, mut broken) = (Vec::new(), Vec::new());
            for (clip, &surprise) in self.clips.iter().zip(&filmed) {
                if let Some(changed) = self.changed(clip, breach, &mut random) {
                    possible.push(surprise);
                    broken.push(changed);
                }
            }
            if broken.is_empty() {
                continue;
            }
            let impossible = self.surprise(trainer, &broken)?;
            let compared = Compared::of(&impossible, &possible);
            let control = Control::of(&impossible, &possible, MEASURE_SEED);
            measured.insert(
                name.into(),
                json!({ "surprise": compared, "control": control }),
            );
        }
        Ok(Value::Object(measured))
    }

    fn shown(&self, clip: &Clip) -> Vec<&'a Picture> {
        (0..self.frames)
            .map(|time| clip.frame(self.films, time))
            .collect()
    }

    /// A clip with a breach; nothing where the films have nothing for it.
    fn changed(
        &self,
        clip: &Clip,
        breach: Breach,
        random: &mut Stream,
    ) -> Option<Vec<&'a Picture>> {
        let reach = self.frames * clip.stride;
        let mut shown = self.shown(clip);
        let mut cut_to = |from: Vec<&Clip>| {
            let index = (random.uniform() * from.len() as f32) as usize;
            let other = self.shown(from.get(index)?);
            shown.splice(self.half.., other[self.half..].iter().copied());
            Some(shown.clone())
        };
        match breach {
            Breach::OtherFilm => {
                cut_to(self.clips.iter().filter(|c| c.film != clip.film).collect())
            }
            Breach::OtherTime => {
                let apart =
                    |c: &&Clip| c.film == clip.film && c.first.abs_diff(clip.first) >= reach;
                cut_to(self.clips.iter().filter(apart).collect())
            }
            Breach::ClipShuffled => shuffled(shown, random),
            Breach::FilmShuffled => {
                let film = shuffled(self.films[clip.film].frames.iter().collect(), random)?;
                shown.splice(self.half.., film.into_iter().take(self.frames - self.half));
                Some(shown)
            }
        }
    }

    /// The mean distance of predicted embeddings of the second half from the real ones, for each clip.
    fn surprise(&self, trainer: &Trainer, clips: &[Vec<&Picture>]) -> Result<Vec<f64>> {
        let config = &trainer.recipe().model;
        let device = pollster::block_on(Backend::Cpu.device())?;
        let encoder = |network: &webjepa::train::network::Network| {
            let mut parameters = network.fixed(&device, Precision::F32);
            Encoder::new(config, Precision::F32, &device, &mut parameters)
        };
        let context = encoder(&trainer.online_network())?;
        let target = encoder(&trainer.encoder_network())?;
        let network = trainer
            .predictor_network()
            .ok_or_else(|| Error::Internal("the objective has no predictor".into()))?;
        let mut parameters = network.fixed(&device, Precision::F32);
        let predictor = Predictor::take(config, &device, &mut parameters)?;
        let mut all = Vec::new();
        for clips in clips.chunks(AT_ONCE) {
            let mut pixels = Vec::new();
            for frame in clips.iter().flatten() {
                pixels.extend(self.processor.apply(&frame.view())?);
            }
            let pictures = Pictures {
                pixels,
                batch: clips.len(),
                frames: self.frames,
                size: config.image_size,
            };
            let [steps, rows, columns] = context.grid(&pictures)?;
            let (seen, count) = (steps / 2 * rows * columns, steps * rows * columns);
            let masks = Masks {
                context: vec![(0..seen).collect(); clips.len()],
                targets: vec![vec![(seen..count).collect(); clips.len()]],
            };
            let prediction = pollster::block_on(predict(
                [&context, &target],
                &predictor,
                &pictures,
                &masks,
                ContextFrom::Visible,
                self.mask_index,
            ))?;
            all.extend(prediction.error.chunks_exact(count - seen).map(|error| {
                error.iter().map(|&e| f64::from(e)).sum::<f64>() / error.len() as f64
            }));
        }
        Ok(all)
    }
}

/// Frames in another order; nothing of one frame, which has none.
fn shuffled<'a>(frames: Vec<&'a Picture>, random: &mut Stream) -> Option<Vec<&'a Picture>> {
    (frames.len() > 1).then(|| {
        loop {
            let order = random.permutation(frames.len());
            if !order.is_sorted() {
                break order.iter().map(|&at| frames[at]).collect();
            }
        }
    })
}
