//! The command line: embeds pictures, describes checkpoints and trains models, with the library's own code.

mod convert;
mod film;
mod plan;
mod presets;
mod pretrain;
mod run;
mod statistics;
mod world;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;
use webjepa::checkpoint::{self, EncoderChoice, Header, Plan, Selection, assemble};
use webjepa::config::ModelConfig;
use webjepa::data::Picture;
use webjepa::device::{Backend, Precision};
use webjepa::input::{Processor, file_name};
use webjepa::model::{Encoder, Pictures};
use webjepa::nn::Parameters;
use webjepa::probe::pool::Pool;
use webjepa::{Error, Result};

/// JEPA models on the command line.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the embeddings of pictures (PNG or JPEG).
    Embed {
        #[command(flatten)]
        model: Model,
        /// Pictures to embed.
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// The pictures are the frames of one clip, for a model of video.
        #[arg(long)]
        clip: bool,
        /// How to pool tokens: mean, none, last4-mean or levels.
        #[arg(long, default_value = "mean", value_parser = parsed::<Pool>)]
        pool: Pool,
        /// Scale every embedding to unit length.
        #[arg(long)]
        normalize: bool,
        /// How to keep weights: f32, f16 or q8.
        #[arg(long, default_value = "f32", value_parser = parsed::<Precision>)]
        dtype: Precision,
        /// Print one JSON object for each picture.
        #[arg(long)]
        json: bool,
    },
    Convert(convert::Convert),
    Film(film::Filmed),
    Plan(plan::Evaluate),
    Presets(presets::Presets),
    Pretrain(pretrain::Pretrain),
    World(world::World),
    /// Describe a checkpoint: sizes, tensors, preprocessing.
    Inspect {
        #[command(flatten)]
        model: Model,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Model {
    /// Folder with config.json and model.safetensors (or its shards), or a single .safetensors file or PyTorch archive.
    model_dir: PathBuf,
    /// Architecture of a checkpoint without config.json: a preset such as vit-huge/14, or a JSON file.
    #[arg(long)]
    config: Option<String>,
    /// Which encoder of an original checkpoint: auto, context or target.
    #[arg(long, default_value = "auto", value_parser = encoder_choice)]
    encoder: EncoderChoice,
}

/// A checkpoint whose headers have been read and checked.
struct Opened {
    config: ModelConfig,
    processor: Processor,
    plan: Plan,
    /// Whether the plan has the predictor in it.
    predictor: bool,
    files: Vec<File>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Embed {
            model,
            images,
            clip,
            pool,
            normalize,
            dtype,
            json,
        } => {
            let inputs: Vec<&[PathBuf]> = match clip {
                true => vec![&images],
                false => images.chunks(1).collect(),
            };
            embed(&model, &inputs, pool, normalize, dtype, json)
        }
        Command::Inspect { model, json } => inspect(&model, json),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Film(arguments) => film::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Presets(arguments) => presets::run(&arguments),
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::World(arguments) => world::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("webjepa: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embed(
    model: &Model,
    inputs: &[&[PathBuf]],
    how: Pool,
    unit: bool,
    dtype: Precision,
    json: bool,
) -> Result<()> {
    let mut opened = model.open(false, false)?;
    let device = pollster::block_on(Backend::Cpu.device())?;
    let mut parameters = Parameters::new(device.clone(), dtype);
    how.check(&opened.config)?;
    assemble(opened.plan, &mut opened.files, |piece| {
        parameters.put(piece)
    })?;
    let encoder = Encoder::new(&opened.config, dtype, &device, &mut parameters)?;
    for frames in inputs {
        let mut pictures = Pictures {
            pixels: Vec::new(),
            batch: 1,
            frames: frames.len(),
            size: [0, 0],
        };
        for path in *frames {
            let name = path.display().to_string();
            let bytes = fs::read(path)
                .map_err(|e| Error::BadInput(format!("{name} cannot be read: {e}")))?;
            let picture = Picture::decode(&name, &bytes)?;
            let size = opened
                .processor
                .output_size_for([picture.height, picture.width])?;
            if !pictures.pixels.is_empty() && size != pictures.size {
                return Err(Error::BadInput(format!(
                    "{name} comes out as {size:?} (height, width) and the frames before it as {:?}",
                    pictures.size
                )));
            }
            pictures.size = size;
            pictures
                .pixels
                .extend(opened.processor.apply(&picture.view())?);
        }
        let grid = encoder.grid(&pictures)?;
        let names: Vec<_> = frames.iter().map(|path| path.to_string_lossy()).collect();
        let (data, shape) = pollster::block_on(encoder.embed(&pictures, how, unit))?;
        if json {
            let image = match names.as_slice() {
                [name] => json!(name),
                names => json!(names),
            };
            println!(
                "{}",
                json!({ "image": image, "shape": shape[1..], "grid": grid, "data": data })
            );
        } else {
            let numbers: Vec<String> = data.iter().map(f32::to_string).collect();
            println!("{}\t{}", names.join(" "), numbers.join(" "));
        }
    }
    Ok(())
}

fn inspect(model: &Model, json: bool) -> Result<()> {
    let opened = model.open(false, false)?;
    let config = &opened.config;
    let parameters = config.parameter_count();
    let tensors: Vec<_> = opened
        .plan
        .slots()
        .iter()
        .map(|s| json!({ "name": s.name, "shape": s.shape }))
        .collect();
    if json {
        let description = json!({
            "config": config,
            "grid": config.grid(),
            "parameters": parameters,
            "bytesRead": opened.plan.bytes_total(),
            "predictor": opened.plan.has_predictor(),
            "processor": opened.processor,
            "tensors": tensors,
        });
        println!("{description:#}");
        return Ok(());
    }
    let [_, h, w] = config.grid();
    let [height, width] = config.image_size;
    let megabytes = |bytes_each: u64| parameters as f64 * bytes_each as f64 / 1e6;
    println!(
        "encoder:        {} layers of width {}, {} heads, of the system {}",
        config.layers,
        config.hidden_size,
        config.heads,
        config.system.name()
    );
    println!(
        "input:          {height} × {width} pixels, patch {}, {h} × {w} tokens",
        config.patch_size
    );
    println!(
        "parameters:     {parameters} (f32 {:.1} MB, f16 {:.1} MB, q8 about {:.1} MB)",
        megabytes(4),
        megabytes(2),
        megabytes(1)
    );
    println!(
        "tensors:        {} of {} bytes in {} file(s)",
        tensors.len(),
        opened.plan.bytes_total(),
        opened.files.len()
    );
    println!(
        "predictor:      {}",
        if opened.plan.has_predictor() {
            "in the file"
        } else {
            "none"
        }
    );
    println!("preprocessing:  {}", json!(opened.processor));
    Ok(())
}

impl Model {
    /// Reads and checks the headers; of the predictor and of the other encoder too where they are wanted and there are some.
    fn open(&self, predictor: bool, both: bool) -> Result<Opened> {
        let dir = &self.model_dir;
        let single = dir.is_file();
        let beside = |name: &str| (!single).then(|| dir.join(name)).filter(|p| p.exists());
        let config = match (&self.config, beside("config.json")) {
            (Some(given), _) if Path::new(given).exists() => {
                ModelConfig::from_any_json(&text(Path::new(given))?)?
            }
            (Some(preset), _) => ModelConfig::preset(preset)?,
            (None, Some(path)) => ModelConfig::from_any_json(&text(&path)?)?,
            (None, None) => {
                return Err(Error::BadConfig(format!(
                    "{} has no config.json; name its architecture with --config",
                    dir.display()
                )));
            }
        };
        Encoder::check(&config)?;
        let named = beside(file_name(&config));
        let processor = match named.or_else(|| beside("preprocessor_config.json")) {
            Some(path) => Processor::from_json(&text(&path)?)?,
            None => Processor::published_for(&config)?,
        };
        let paths = match beside("model.safetensors.index.json") {
            _ if single => vec![dir.clone()],
            Some(index) => checkpoint::shards(&text(&index)?)?
                .iter()
                .map(|name| dir.join(name))
                .collect(),
            None => vec![dir.join("model.safetensors")],
        };
        let mut files = Vec::new();
        let mut headers = Vec::new();
        for path in paths {
            let unreadable = |e: std::io::Error| {
                Error::BadCheckpoint(format!("{} cannot be read: {e}", path.display()))
            };
            let mut file = File::open(&path).map_err(unreadable)?;
            let size = file.metadata().map_err(unreadable)?.len();
            headers.push(checkpoint::File {
                name: path.display().to_string(),
                header: Header::read(&mut file, size)?,
            });
            files.push(file);
        }
        let predictor = predictor && config.has_predictor() && has_predictor(&headers, &config);
        let plan = Plan::new(
            &headers,
            &config,
            Selection {
                encoder: self.encoder,
                predictor,
                both,
                ..Selection::default()
            },
        )?;
        Ok(Opened {
            config,
            processor,
            plan,
            predictor,
            files,
        })
    }
}

fn has_predictor(files: &[checkpoint::File], config: &ModelConfig) -> bool {
    let mut tensors = files.iter().flat_map(|file| &file.header.tensors);
    tensors.any(|tensor| checkpoint::is_of_predictor(&tensor.name, config))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::BadInput(format!("{} cannot be written: {error}", path.display()))
}

pub(crate) fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path)
        .map_err(|e| Error::BadConfig(format!("{} cannot be read: {e}", path.display())))
}

fn parsed<T: std::str::FromStr<Err = Error>>(name: &str) -> Result<T, String> {
    name.parse().map_err(|e: Error| e.to_string())
}

fn encoder_choice(name: &str) -> Result<EncoderChoice, String> {
    parsed(name)
}
