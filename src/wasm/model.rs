//! Models: loading from the bytes of a checkpoint, pictures in, embeddings out.

use std::rc::Rc;

use js_sys::{Float32Array, Object, Reflect};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use super::{from_js, to_js};
use crate::checkpoint::{Assembler, EncoderChoice, File, Header, Plan, Selection, header_length};
use crate::config::ModelConfig;
use crate::device::{Backend, Precision};
use crate::input::{ImageView, Processor};
use crate::model::ijepa::{Encoder, Pictures};
use crate::nn::Parameters;
use crate::probe::pool::{Pool, pool};
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

fn device() -> Result<burn::tensor::Device> {
    DEVICE
        .with(|cell| cell.get().cloned())
        .ok_or_else(|| Error::Internal("initDevice() has not been awaited".into()))
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
    config: ModelConfig,
    processor: Processor,
    choice: EncoderChoice,
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
        let config = match (&options.config, &options.preset) {
            (Some(text), _) => ModelConfig::from_any_json(text)?,
            (None, Some(serde_json::Value::String(name))) => ModelConfig::preset(name)?,
            (None, Some(object)) => ModelConfig::from_json(&object.to_string())?,
            (None, None) => {
                return Err(Error::BadConfig(
                    "the model has no config.json; name its architecture with the option `config`"
                        .into(),
                )
                .into());
            }
        };
        Encoder::check(&config)?;
        let processor = match &options.preprocessor {
            Some(text) => Processor::from_json(text)?,
            None => Processor::default_for(config.image_size)?,
        };
        let precision = options.dtype.parse()?;
        Ok(Self {
            parameters: Parameters::new(device()?, precision),
            choice: options.encoder.as_deref().unwrap_or("auto").parse()?,
            config,
            processor,
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

    /// Checks all files against the configuration and says which bytes to read, in file order.
    pub fn plan(&mut self) -> Result<JsValue, JsValue> {
        let plan = Plan::new(
            &self.files,
            &self.config,
            Selection {
                encoder: self.choice,
                predictor: false,
            },
        )?;
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
        Ok(self.assembler()?.begin(index)?)
    }

    /// The next bytes of the current read.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), JsValue> {
        if let Some(done) = self.assembler()?.write(chunk)? {
            self.parameters.put(&done.name, &done.shape, done.data)?;
        }
        Ok(())
    }

    /// The model, once every read is complete.
    pub async fn finish(mut self) -> Result<Model, JsValue> {
        let Some(assembler) = self.assembler else {
            return Err(unplanned().into());
        };
        assembler.finish()?;
        let encoder = Encoder::new(&self.config, self.precision, &device()?, &mut self.parameters)?;
        Ok(Model {
            encoder: Rc::new(encoder),
            processor: self.processor,
        })
    }
}

impl ModelLoader {
    fn assembler(&mut self) -> Result<&mut Assembler> {
        self.assembler.as_mut().ok_or_else(unplanned)
    }
}

fn unplanned() -> Error {
    Error::Internal("plan() has not been called".into())
}

/// A loaded encoder.
#[wasm_bindgen]
pub struct Model {
    encoder: Rc<Encoder>,
    processor: Processor,
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
            processor: &self.processor,
        })?)
    }

    /// An empty batch, at the checkpoint's own resolution or at `[height, width]`.
    #[wasm_bindgen(js_name = newBatch)]
    pub fn new_batch(&self, size: JsValue, preprocess: Option<bool>) -> Result<Batch, JsValue> {
        let size: Option<[usize; 2]> = from_js(size)?;
        let config = self.encoder.config();
        if let Some(size) = size {
            config.grid_for(size)?;
        }
        let processor = match (preprocess.unwrap_or(true), size) {
            (true, Some(size)) => self.processor.clone().with_size(size)?,
            (true, None) => self.processor.clone(),
            (false, _) => Processor::identity()
                .with_statistics(&vec![0.0; config.channels], &vec![1.0; config.channels])?,
        };
        Ok(Batch {
            processor,
            config: config.clone(),
            size,
            pictures: None,
        })
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
        how.check(encoder.config().layers)?;
        let pictures = batch
            .pictures
            .ok_or_else(|| Error::BadInput("the batch has no pictures".into()))?;
        let grid = encoder.config().grid_for(pictures.size)?;
        let layers = encoder.encode(&pictures, None, how.layers()).await?;
        let shape = layers[0].shape;
        let (data, shape) = pool(
            layers.into_iter().map(|l| l.data).collect(),
            shape,
            how,
            normalize,
        );
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
}

/// Pictures on their way into a model, all of one size.
#[wasm_bindgen]
pub struct Batch {
    processor: Processor,
    config: ModelConfig,
    /// The size asked for; otherwise that of the first picture after processing.
    size: Option<[usize; 2]>,
    pictures: Option<Pictures>,
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
        Ok(self.push(&ImageView::from_u8(&data, width, height, channels))?)
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
        Ok(self.push(&ImageView::from_f32(&data, width, height, channels))?)
    }

    /// Pictures so far.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> usize {
        self.pictures.as_ref().map_or(0, |p| p.batch)
    }
}

impl Batch {
    fn push(&mut self, image: &ImageView) -> Result<()> {
        let size = self
            .processor
            .output_size_for([image.height, image.width])?;
        self.config.grid_for(size)?;
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
            size,
        });
        pictures.pixels.extend(planar);
        pictures.batch += 1;
        Ok(())
    }
}
