//! `webjepa presets`: the sizes of every model that has a name.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use webjepa::checkpoint::{Parameter, parameters, predictor_parameters};
use webjepa::config::ModelConfig;
use webjepa::device::Precision;
use webjepa::nn::parameters::{is_table, is_vector};
use webjepa::{Error, Result};

use super::{text, unwritable};

/// What stands around the table in a document.
const MARKERS: [&str; 2] = ["<!-- presets -->\n", "<!-- /presets -->"];

/// Print the sizes of all presets: parameters, bytes of files, bytes of weights in memory.
#[derive(clap::Args)]
pub struct Presets {
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    /// Write the table between the markers `<!-- presets -->` and `<!-- /presets -->` of this file instead of printing it.
    #[arg(long, conflicts_with = "json")]
    markdown: Option<PathBuf>,
}

/// A preset's sizes.
struct Row {
    name: &'static str,
    config: ModelConfig,
    encoder: u64,
    predictor: u64,
    /// In memory, of encoder and predictor, kept as f32, f16 and q8.
    bytes: [u64; 3],
}

pub fn run(arguments: &Presets) -> Result<()> {
    let rows: Vec<Row> = ModelConfig::PRESETS
        .iter()
        .map(|name| Row::of(name))
        .collect::<Result<_>>()?;
    if arguments.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        println!("{:#}", json!(rows));
        return Ok(());
    }
    let table = table(&rows);
    let Some(path) = &arguments.markdown else {
        print!("{table}");
        return Ok(());
    };
    let document = text(path)?;
    let outside = |at: Option<usize>| {
        at.ok_or_else(|| {
            Error::BadInput(format!(
                "{} has no place for the table: the lines {} and {}",
                path.display(),
                MARKERS[0].trim_end(),
                MARKERS[1]
            ))
        })
    };
    let begin = outside(document.find(MARKERS[0]))? + MARKERS[0].len();
    let end = begin + outside(document[begin..].find(MARKERS[1]))?;
    let written = format!("{}\n{table}\n{}", &document[..begin], &document[end..]);
    fs::write(path, written).map_err(|e| unwritable(path, &e))
}

impl Row {
    fn of(name: &'static str) -> Result<Self> {
        let config = ModelConfig::preset(name)?;
        let list: Vec<Parameter> = parameters(&config)
            .into_iter()
            .chain(predictor_parameters(&config))
            .collect();
        let bytes = [Precision::F32, Precision::F16, Precision::Q8]
            .map(|dtype| list.iter().map(|p| bytes_of(p, dtype)).sum());
        Ok(Self {
            name,
            encoder: config.parameter_count(),
            predictor: config.predictor_parameter_count(),
            bytes,
            config,
        })
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "name": self.name,
            "config": self.config,
            "tokens": self.config.tokens(),
            "parameters": { "encoder": self.encoder, "predictor": self.predictor },
            "memory": { "f32": self.bytes[0], "f16": self.bytes[1], "q8": self.bytes[2] },
        })
    }
}

/// What a parameter occupies on the device, as `nn::Parameters` counts it.
fn bytes_of(Parameter { name, shape, .. }: &Parameter, dtype: Precision) -> u64 {
    let count: usize = shape.iter().product();
    let bytes = if is_table(name) || is_vector(shape) {
        4 * count
    } else {
        dtype.bytes(count / shape[0], shape[0])
    };
    bytes as u64
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| preset | input | tokens | parameters: encoder | predictor | file: f32 | f16 | memory: f32 | f16 | q8 |".to_owned(),
        format!("|{}|", ["---"; 10].join("|")),
    ];
    lines.extend(rows.iter().map(|row| {
        let [height, width] = row.config.image_size;
        let input = match row.config.frames {
            1 => format!("{height} × {width}"),
            frames => format!("{frames} × {height} × {width}"),
        };
        let millions = |count: u64| match count {
            0 => "–".to_owned(),
            count => format!("{:.1} M", count as f64 / 1e6),
        };
        let parameters = row.encoder + row.predictor;
        let [f32, f16, q8] = row.bytes.map(megabytes);
        format!(
            "| `{}` | {input} | {} | {} | {} | {} | {} | {f32} | {f16} | {q8} |",
            row.name,
            row.config.tokens(),
            millions(row.encoder),
            millions(row.predictor),
            megabytes(4 * parameters),
            megabytes(2 * parameters),
        )
    }));
    lines.join("\n") + "\n"
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
