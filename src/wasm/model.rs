//! Models: loading from the bytes of a checkpoint, pictures in, embeddings out.

use std::rc::Rc;

use js_sys::{Float32Array, Object, Reflect, Uint32Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use super::attentive::{Probe, classified};
use super::trainer::{self, Trainer};
use super::world::World;
use super::{from_js, to_js};
use crate::checkpoint::{
    Assembler, EncoderChoice, File, Header, OTHER, Plan, Selection, header_length, pytorch,
};
use crate::config::ModelConfig;
use crate::device::{Backend, Precision, read_values};
use crate::input::{ImageView, Processor};
use crate::mask::Masks;
use crate::model::world::Sizes;
use crate::model::{AttentiveProbe, Encoder, Pictures, Predictor, ProbeConfig, predict};
use crate::nn::Parameters;
use crate::probe::pool::Pool;
use crate::train::probe::{self, About};
use crate::train::trainer::{Batch as RunBatch, Loaded, Trainer as Run};
use crate::{Error, Result};

thread_local! {
    static DEVICE: std::cell::OnceCell<burn::tensor::Device> = const { std::cell::OnceCell::new() };
}

/// Acquires the device of this build; awaited once before anything else.
#[wasm_bindgen(js_name = initDevice)]
pub async fn init_device() -> Result<(), JsValue> {
    if DEVICE.with(|cell| cell.get().is_none()) {
        let device = Backend::BUILT.device().await?;
        DEVICE
            .with(|cell| cell.set(device))
            .map_err(|_| Error::Internal("the device was made twice".into()))?;
    }
    Ok(())
}

/// Lets kernels use subgroups, after [`init_device`] has made its device with WebGPU's feature "subgroups".
#[cfg(feature = "webgpu")]
#[wasm_bindgen(js_name = useSubgroups)]
pub fn use_subgroups() {
    crate::device::use_subgroups();
}

pub(super) fn device() -> Result<burn::tensor::Device> {
    DEVICE
        .with(|cell| cell.get().cloned())
        .ok_or_else(|| Error::Internal("initDevice() has not been awaited".into()))
}

/// Whether a file that begins with these bytes is a PyTorch archive.
#[wasm_bindgen(js_name = isArchive)]
pub fn is_archive(prefix: &[u8]) -> bool {
    pytorch::is_archive(prefix)
}

/// A PyTorch archive whose directory is being read.
#[wasm_bindgen]
pub struct Archive(pytorch::Archive);

#[wasm_bindgen]
impl Archive {
    /// Of a file of so many bytes.
    #[wasm_bindgen(constructor)]
    pub fn new(size: f64) -> Archive {
        Self(pytorch::Archive::new(size as u64))
    }

    /// The bytes to give next, `[from, to]`; undefined when it is complete.
    #[wasm_bindgen(js_name = nextRange)]
    pub fn next_range(&self) -> Option<Vec<f64>> {
        self.0
            .next()
            .map(|range| range.map(|at| at as f64).to_vec())
    }

    /// Takes those bytes.
    pub fn give(&mut self, bytes: &[u8]) -> Result<(), JsValue> {
        Ok(self.0.give(bytes)?)
    }
}

/// Length in bytes of a safetensors header, from the first eight bytes of a file.
#[wasm_bindgen(js_name = headerLength)]
pub fn js_header_length(prefix: &[u8], file_size: f64) -> Result<f64, JsValue> {
    let prefix = prefix.try_into().map_err(|_| {
        Error::BadCheckpoint("the file is shorter than a safetensors file can be".into())
    })?;
    Ok(header_length(prefix, file_size as u64)? as f64)
}

#[derive(Deserialize)]
struct LoaderOptions {
    config: Option<String>,
    preset: Option<serde_json::Value>,
    preprocessor: Option<String>,
    dtype: String,
    encoder: Option<String>,
    predictor: bool,
    /// Whether a world model is to be made.
    #[serde(default)]
    world: bool,
    /// Whether the predictor may be one of what actions do.
    #[serde(default)]
    training: bool,
    /// Whether the attentive probe is read too where there is one.
    #[serde(default)]
    classifier: bool,
    /// Whether the attentive probe alone is read, of which nothing else needs to be known.
    #[serde(default)]
    probe: bool,
    /// Attention heads of the probe, unless the files tell.
    heads: Option<usize>,
}

#[derive(Serialize)]
struct PlannedRead<'a> {
    file: &'a str,
    tensor: &'a str,
    begin: u64,
    end: u64,
}

/// Builds a model from the bytes of its checkpoint, as they come in.
#[wasm_bindgen]
pub struct ModelLoader {
    /// Absent where the attentive probe alone is read.
    described: Option<(ModelConfig, Processor)>,
    config_text: Option<String>,
    classifier: bool,
    heads: Option<usize>,
    choice: EncoderChoice,
    predictor: bool,
    world: bool,
    training: bool,
    files: Vec<File>,
    parameters: Parameters,
    precision: Precision,
    assembler: Option<Assembler>,
}

#[wasm_bindgen]
impl ModelLoader {
    /// See `LoaderOptions` in `www/src/glue.ts`.
    #[wasm_bindgen(constructor)]
    pub fn new(options: JsValue) -> Result<ModelLoader, JsValue> {
        let options: LoaderOptions = from_js(options)?;
        let described = match options.probe {
            true => None,
            false => Some(options.described()?),
        };
        let precision = options.dtype.parse()?;
        Ok(Self {
            parameters: Parameters::new(device()?, precision),
            choice: options.encoder.as_deref().unwrap_or("auto").parse()?,
            predictor: options.predictor,
            world: options.world,
            training: options.training,
            described,
            config_text: options.config,
            classifier: options.classifier,
            heads: options.heads,
            files: Vec::new(),
            precision,
            assembler: None,
        })
    }

    /// Adds a safetensors file by its JSON header.
    #[wasm_bindgen(js_name = addFile)]
    pub fn add_file(&mut self, name: String, size: f64, header: &[u8]) -> Result<(), JsValue> {
        let header = Header::parse(header, size as u64)?;
        self.files.push(File { name, header });
        Ok(())
    }

    /// Adds a PyTorch archive that has been read to its end.
    #[wasm_bindgen(js_name = addArchive)]
    pub fn add_archive(&mut self, name: String, archive: Archive) -> Result<(), JsValue> {
        let header = archive.0.header()?;
        self.files.push(File { name, header });
        Ok(())
    }

    /// Checks all files against the configuration and says which bytes to read, in file order.
    pub fn plan(&mut self) -> Result<JsValue, JsValue> {
        let plan = match &self.described {
            None => Plan::probe(&self.files)?.0,
            Some((config, _)) => {
                let encoder = Selection {
                    encoder: self.choice,
                    predictor: self.world,
                    probe: self.classifier,
                    ..Selection::default()
                };
                let plan = Plan::new(&self.files, config, encoder)?;
                self.predictor &=
                    plan.has_predictor() && (self.training || config.predicts_masked());
                let everything = Selection {
                    predictor: true,
                    both: true,
                    ..encoder
                };
                match self.predictor {
                    true => Plan::new(&self.files, config, everything)?,
                    false => plan,
                }
            }
        };
        let reads: Vec<_> = plan
            .reads()
            .iter()
            .map(|r| PlannedRead {
                file: &self.files[r.file].name,
                tensor: &r.tensor,
                begin: r.begin,
                end: r.end,
            })
            .collect();
        let js = to_js(&reads)?;
        self.assembler = Some(Assembler::new(plan));
        Ok(js)
    }

    /// The bytes of read `index` of the plan follow.
    pub fn begin(&mut self, index: usize) -> Result<(), JsValue> {
        let assembler = self.assembler.as_mut().ok_or_else(unplanned)?;
        Ok(assembler.begin(index)?)
    }

    /// The next bytes of the current read.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), JsValue> {
        let assembler = self.assembler.as_mut().ok_or_else(unplanned)?;
        Ok(assembler.write(chunk, |piece| self.parameters.put(piece))?)
    }

    /// The model, once every read is complete.
    pub async fn finish(self) -> Result<Model, JsValue> {
        let complete = self.complete()?;
        Ok(Model::new(complete)?)
    }

    /// A world model, once every read is complete.
    #[wasm_bindgen(js_name = finishWorld)]
    pub async fn finish_world(self) -> Result<World, JsValue> {
        Ok(World::new(self.complete()?)?)
    }

    /// The attentive probe, once every read is complete.
    #[wasm_bindgen(js_name = finishProbe)]
    pub async fn finish_probe(mut self) -> Result<Probe, JsValue> {
        let assembler = self.assembler.take().ok_or_else(unplanned)?;
        let (about, sizes) = self.probe(assembler.plan())?.ok_or_else(unplanned)?;
        assembler.finish()?;
        let probe = probe::Probe::of_file(about, sizes, &mut self.parameters, &device()?)?;
        Ok(Probe::from(probe))
    }

    /// A trainer that goes on from the model, once every read is complete. See `GlueTrainerOptions` in `www/src/glue.ts`.
    #[wasm_bindgen(js_name = finishTrainer)]
    pub async fn finish_trainer(self, options: JsValue) -> Result<Trainer, JsValue> {
        let loaded = self.complete()?;
        if loaded.precision != Precision::F32 {
            return Err(
                Error::Unsupported("weights are trained in f32: load them so".into()).into(),
            );
        }
        let recipe = trainer::options(options)?.recipe(Some(loaded.config.clone()))?;
        let loaded = Loaded {
            parameters: loaded.parameters,
            other: loaded.other,
            is_target: loaded.is_target,
            predictor: loaded.predictor,
        };
        Ok(Trainer::from(Run::from_loaded(recipe, &device()?, loaded)?))
    }
}

/// Everything that a checkpoint gave.
pub(super) struct Complete {
    pub config: ModelConfig,
    pub processor: Processor,
    pub precision: Precision,
    pub parameters: Parameters,
    other: Option<Parameters>,
    is_target: bool,
    predictor: bool,
    probe: Option<(About, [usize; 4])>,
}

impl LoaderOptions {
    /// The geometry of the model, and what its pictures go through.
    fn described(&self) -> Result<(ModelConfig, Processor)> {
        let config = match (&self.config, &self.preset) {
            (Some(text), _) => ModelConfig::from_any_json(text)?,
            (None, Some(serde_json::Value::String(name))) => ModelConfig::preset(name)?,
            (None, Some(object)) => ModelConfig::from_json(&object.to_string())?,
            (None, None) => {
                return Err(Error::BadConfig(
                    "the model has no config.json; name its architecture with the option `config`"
                        .into(),
                ));
            }
        };
        Encoder::check(&config)?;
        if self.world {
            Sizes::of(&config)?;
        }
        let processor = match &self.preprocessor {
            Some(text) => Processor::from_json(text)?,
            None => Processor::published_for(&config)?,
        };
        Ok((config, processor))
    }
}

impl ModelLoader {
    /// The attentive probe that a plan reads.
    fn probe(&self, plan: &Plan) -> Result<Option<(About, [usize; 4])>> {
        let Some(sizes) = plan.probe_sizes() else {
            return Ok(None);
        };
        let about = About::find(&self.files, self.config_text.as_deref(), self.heads)?;
        Ok(Some((about, sizes)))
    }

    fn complete(mut self) -> Result<Complete> {
        let assembler = self.assembler.take().ok_or_else(unplanned)?;
        let is_target = assembler.plan().is_target();
        let probe = self.probe(assembler.plan())?;
        let (config, processor) = self.described.take().ok_or_else(unplanned)?;
        assembler.finish()?;
        let other = Some(self.parameters.split(OTHER)).filter(|other| !other.is_empty());
        Ok(Complete {
            config,
            processor,
            precision: self.precision,
            parameters: self.parameters,
            other,
            is_target,
            predictor: self.predictor,
            probe,
        })
    }
}

fn unplanned() -> Error {
    Error::Internal("plan() has not been called".into())
}

/// A loaded encoder, and what it takes to predict and to classify where the checkpoint has it.
#[wasm_bindgen]
pub struct Model {
    encoder: Rc<Encoder>,
    predicting: Option<Rc<Predicting>>,
    classifier: Option<Rc<Classifier>>,
    processor: Processor,
}

/// The attentive probe of a checkpoint, and what its classes are called.
struct Classifier {
    probe: AttentiveProbe,
    classes: usize,
    labels: serde_json::Value,
}

struct Predicting {
    predictor: Predictor,
    /// The other encoder of the two, where there are two.
    other: Option<Encoder>,
    /// Whether the encoder that embeds is the target encoder.
    embeds_with_target: bool,
}

impl Model {
    fn new(loaded: Complete) -> Result<Self> {
        let Complete {
            config,
            precision,
            mut parameters,
            other,
            ..
        } = loaded;
        let device = device()?;
        let predicting = match loaded.predictor {
            false => None,
            true => Some(Rc::new(Predicting {
                predictor: Predictor::take(&config, &device, &mut parameters)?,
                other: other
                    .map(|mut other| Encoder::new(&config, precision, &device, &mut other))
                    .transpose()?,
                embeds_with_target: loaded.is_target,
            })),
        };
        let classifier = match loaded.probe {
            None => None,
            Some((about, sizes)) => {
                about.check(sizes[3])?;
                let config = ProbeConfig::of(sizes, about.heads, about.layer_norm_eps);
                Some(Rc::new(Classifier {
                    probe: AttentiveProbe::take(&config, &device, &mut parameters)?,
                    classes: config.classes,
                    labels: about.labels,
                }))
            }
        };
        Ok(Self {
            encoder: Rc::new(Encoder::new(&config, precision, &device, &mut parameters)?),
            predicting,
            classifier,
            processor: loaded.processor,
        })
    }

    /// The model of a run's encoder and predictor as they are now.
    pub(super) fn of_run(
        run: &crate::train::trainer::Trainer,
        processor: Processor,
    ) -> Result<Self> {
        let device = device()?;
        let mut parameters = run.encoder_network().fixed(&device, Precision::F32);
        let config = &run.recipe().model;
        let encoder =
            |parameters: &mut Parameters| Encoder::new(config, Precision::F32, &device, parameters);
        let predicting = match run.predictor_network() {
            None => None,
            Some(network) => Some(Rc::new(Predicting {
                predictor: Predictor::take(
                    config,
                    &device,
                    &mut network.fixed(&device, Precision::F32),
                )?,
                other: Some(encoder(
                    &mut run.online_network().fixed(&device, Precision::F32),
                )?),
                embeds_with_target: true,
            })),
        };
        Ok(Self {
            encoder: Rc::new(encoder(&mut parameters)?),
            predicting,
            classifier: None,
            processor,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelInfo<'a> {
    config: &'a ModelConfig,
    grid: [usize; 3],
    hidden_size: usize,
    dtype: &'static str,
    backend: &'static str,
    parameters: u64,
    weight_bytes: usize,
    predictor: bool,
    /// Of the attentive probe; 0 where there is none.
    classes: usize,
    labels: Option<String>,
    processor: &'a Processor,
}

#[wasm_bindgen]
impl Model {
    /// See `ModelInfo` in `www/src/glue.ts`.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        let config = self.encoder.config();
        Ok(to_js(&ModelInfo {
            config,
            grid: config.grid(),
            hidden_size: config.hidden_size,
            dtype: self.encoder.precision().name(),
            backend: Backend::BUILT.name(),
            parameters: config.parameter_count(),
            weight_bytes: self.encoder.weight_bytes(),
            predictor: self.predicting.is_some(),
            classes: self.classifier.as_ref().map_or(0, |c| c.classes),
            labels: self.classifier.as_ref().map(|c| c.labels.to_string()),
            processor: &self.processor,
        })?)
    }

    /// An empty batch of pictures, or of clips of `frames`, at the checkpoint's own resolution or at `[height, width]`.
    #[wasm_bindgen(js_name = newBatch)]
    pub fn new_batch(
        &self,
        size: JsValue,
        preprocess: Option<bool>,
        frames: Option<usize>,
    ) -> Result<Batch, JsValue> {
        let size: Option<[usize; 2]> = from_js(size)?;
        let config = self.encoder.config();
        let frames = frames.unwrap_or(1);
        config.grid_of(frames, size.unwrap_or(config.image_size))?;
        let processor = match (preprocess.unwrap_or(true), size) {
            (true, Some(size)) => self.processor.clone().with_size(size)?,
            (true, None) => self.processor.clone(),
            (false, _) => return Ok(Batch::prepared(config, size, frames)?),
        };
        Ok(Batch::new(processor, config, size, frames))
    }

    /// Embeds a batch. `{ data, shape, grid }`, the shape with its leading batch axis.
    pub async fn embed(
        &self,
        batch: Batch,
        how: String,
        normalize: bool,
    ) -> Result<JsValue, JsValue> {
        let encoder = Rc::clone(&self.encoder);
        let how: Pool = how.parse()?;
        let pictures = batch.into_pictures()?;
        let grid = encoder.grid(&pictures)?;
        let (data, shape) = encoder.embed(&pictures, how, normalize).await?;
        let result = Object::new();
        Reflect::set(
            &result,
            &"data".into(),
            &Float32Array::from(data.as_slice()),
        )?;
        Reflect::set(&result, &"shape".into(), &to_js(&shape)?)?;
        Reflect::set(&result, &"grid".into(), &to_js(&grid)?)?;
        Ok(result.into())
    }

    /// The classes of a batch by the checkpoint's attentive probe: `{ labels, scores, logits }`.
    pub async fn classify(&self, batch: Batch) -> Result<JsValue, JsValue> {
        let (encoder, Some(classifier)) = (Rc::clone(&self.encoder), self.classifier.clone())
        else {
            return Err(Error::Unsupported(
                "the checkpoint has no attentive probe, or it was not loaded".into(),
            )
            .into());
        };
        let tokens = encoder.levels(&batch.into_pictures()?, None, 1)?;
        let scores = classifier.probe.scores(classifier.probe.pooled(tokens));
        classified(read_values(scores).await?, classifier.classes)
    }

    /// Predicts the tokens of one picture or clip in each of `targets` from those in `context`. `{ predicted, target, error, shape }`, and
    /// `contextPredicted` where the predictor says something of the context, too.
    pub async fn predict(
        &self,
        batch: Batch,
        context: Vec<u32>,
        targets: Vec<Uint32Array>,
        context_from: String,
        mask_index: usize,
    ) -> Result<JsValue, JsValue> {
        let (encoder, Some(predicting)) = (Rc::clone(&self.encoder), self.predicting.clone())
        else {
            return Err(Error::Unsupported(
                "the checkpoint has no predictor, or it was not loaded: load one that has, in the original project's names, \
                 with its sizes in config.json"
                    .into(),
            )
            .into());
        };
        let pictures = batch.into_pictures()?;
        let indices = |list: Vec<u32>| list.into_iter().map(|i| i as usize).collect::<Vec<_>>();
        let masks = Masks {
            context: vec![indices(context)],
            targets: targets
                .iter()
                .map(|block| vec![indices(block.to_vec())])
                .collect(),
        };
        let other = predicting.other.as_ref().unwrap_or(&encoder);
        let [context, target] = match predicting.embeds_with_target {
            true => [other, &encoder],
            false => [&encoder, other],
        };
        let prediction = predict(
            [context, target],
            &predicting.predictor,
            &pictures,
            &masks,
            context_from.parse()?,
            mask_index,
        )
        .await?;
        let result = Object::new();
        for (name, data) in [
            ("predicted", &prediction.predicted),
            ("target", &prediction.target),
            ("error", &prediction.error),
        ] {
            Reflect::set(&result, &name.into(), &Float32Array::from(data.as_slice()))?;
        }
        if let Some(data) = &prediction.at_context {
            let data = Float32Array::from(data.as_slice());
            Reflect::set(&result, &"contextPredicted".into(), &data)?;
        }
        Reflect::set(&result, &"shape".into(), &to_js(&prediction.shape)?)?;
        Ok(result.into())
    }
}

/// Pictures on their way into a model or a trainer.
#[wasm_bindgen]
pub struct Batch(Filling);

/// Who takes the pictures.
enum Filling {
    Model(ModelBatch),
    Trainer(trainer::Views),
}

/// Pictures on their way into a model, all of one size.
struct ModelBatch {
    processor: Processor,
    config: ModelConfig,
    /// The size asked for; otherwise that of the first picture after processing.
    size: Option<[usize; 2]>,
    /// Frames of a clip.
    frames: usize,
    /// Each frame counts as one of the batch until there are all.
    pictures: Option<Pictures>,
}

impl From<trainer::Views> for Batch {
    fn from(views: trainer::Views) -> Self {
        Self(Filling::Trainer(views))
    }
}

#[wasm_bindgen]
impl Batch {
    /// Adds a picture of interleaved 8-bit samples.
    #[wasm_bindgen(js_name = pushU8)]
    pub fn push_u8(
        &mut self,
        data: Vec<u8>,
        width: usize,
        height: usize,
        channels: usize,
    ) -> Result<(), JsValue> {
        let image = ImageView::from_u8(&data, width, height, channels);
        match &mut self.0 {
            Filling::Model(batch) => batch.push(&image)?,
            Filling::Trainer(views) => views.push(&image)?,
        }
        Ok(())
    }

    /// Adds a picture of interleaved samples from 0 to 1, or of model input.
    #[wasm_bindgen(js_name = pushF32)]
    pub fn push_f32(
        &mut self,
        data: Vec<f32>,
        width: usize,
        height: usize,
        channels: usize,
    ) -> Result<(), JsValue> {
        match &mut self.0 {
            Filling::Model(batch) => {
                batch.push(&ImageView::from_f32(&data, width, height, channels))?;
            }
            Filling::Trainer(views) => {
                let bytes: Vec<u8> = data.iter().map(|v| (255.0 * v).round() as u8).collect();
                views.push(&ImageView::from_u8(&bytes, width, height, channels))?;
            }
        }
        Ok(())
    }

    /// Pictures so far, or whole clips.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> usize {
        match &self.0 {
            Filling::Model(batch) => batch.pictures.as_ref().map_or(0, |p| p.batch) / batch.frames,
            Filling::Trainer(views) => views.pictures(),
        }
    }
}

impl Batch {
    /// An empty batch of what `processor` makes of pictures.
    pub(super) fn new(
        processor: Processor,
        config: &ModelConfig,
        size: Option<[usize; 2]>,
        frames: usize,
    ) -> Self {
        Self(Filling::Model(ModelBatch {
            processor,
            config: config.clone(),
            size,
            frames,
            pictures: None,
        }))
    }

    /// An empty batch of the very input of a model or trainer.
    pub(super) fn prepared(
        config: &ModelConfig,
        size: Option<[usize; 2]>,
        frames: usize,
    ) -> Result<Self> {
        let channels = config.channels;
        let processor =
            Processor::identity().with_statistics(&vec![0.0; channels], &vec![1.0; channels])?;
        Ok(Self::new(processor, config, size, frames))
    }

    /// What a trainer takes: views, or its very input.
    pub(super) fn into_step(self) -> Result<RunBatch> {
        match self.0 {
            Filling::Trainer(views) => Ok(views.batch),
            Filling::Model(_) => Ok(RunBatch::prepared(self.into_pictures()?, None)),
        }
    }

    /// What a model takes.
    pub(super) fn into_pictures(self) -> Result<Pictures> {
        let Filling::Model(batch) = self.0 else {
            return Err(Error::Internal(
                "a trainer's batch was given to a model".into(),
            ));
        };
        let frames = batch.frames;
        let mut pictures = batch
            .pictures
            .ok_or_else(|| Error::BadInput("the batch has no pictures".into()))?;
        if !pictures.batch.is_multiple_of(frames) {
            return Err(Error::BadInput(format!(
                "the last clip of the batch has {} frames and the others have {frames}",
                pictures.batch % frames
            )));
        }
        pictures.batch /= frames;
        Ok(pictures)
    }
}

impl ModelBatch {
    fn push(&mut self, image: &ImageView) -> Result<()> {
        let size = self
            .processor
            .output_size_for([image.height, image.width])?;
        self.config.grid_of(self.frames, size)?;
        let wanted = self.size.get_or_insert(size);
        if *wanted != size {
            return Err(Error::BadInput(format!(
                "a picture comes out as {}×{} (height × width) and the others of its batch as {}×{}",
                size[0], size[1], wanted[0], wanted[1]
            )));
        }
        let planar = self.processor.apply(image)?;
        let pictures = self.pictures.get_or_insert_with(|| Pictures {
            pixels: Vec::new(),
            batch: 0,
            frames: self.frames,
            size,
        });
        pictures.pixels.extend(planar);
        pictures.batch += 1;
        Ok(())
    }
}
