//! Model configuration: what a model's sizes are, from every place that can say so. Every derived size is computed here
//! and nowhere else.
//!
//! Three sources give a [`ModelConfig`]: the `config.json` of a Hugging Face folder ([`ModelConfig::from_hf_json`]), this
//! library's own object ([`ModelConfig::from_json`]) and the name of a published size ([`ModelConfig::preset`]). All of
//! them [validate](ModelConfig::validate), so that the methods of a configuration that came from one of them can neither
//! overflow nor divide by zero.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Largest accepted configuration text, in bytes; published files have about 500.
pub const MAX_JSON_BYTES: usize = 1 << 20;
/// Largest accepted number of tokens of one input: its square, the number of attention scores, must fit the 32-bit sizes of
/// WebAssembly.
pub const MAX_TOKENS: usize = (1 << 16) - 1;

const MAX_IMAGE_SIZE: usize = 1 << 16;
const MAX_PATCH_SIZE: usize = 1 << 10;
const MAX_CHANNELS: usize = 1 << 10;
const MAX_FRAMES: usize = 1 << 12;
const MAX_HIDDEN_SIZE: usize = 1 << 14;
const MAX_MLP_HIDDEN: usize = 1 << 16;
const MAX_LAYERS: usize = 1 << 10;
/// A tensor of this many elements is still addressable as `f32` where `usize` has 32 bits.
const MAX_TENSOR_ELEMENTS: u64 = 1 << 30;
/// Four times the largest published vision transformer of this family.
const MAX_PARAMETERS: u64 = 1 << 33;

/// How a model knows where a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// A fixed table of sines and cosines, added to the tokens; computed where the checkpoint has none.
    Sincos,
    /// Rotary embedding of queries and keys; no table.
    Rope,
    /// A trained table, added to the tokens.
    Learned,
}

/// Sizes of the narrow transformer that predicts the embeddings of masked tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictorConfig {
    /// Width of the predictor's tokens.
    pub hidden_size: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Width of the hidden layer of each MLP.
    pub mlp_hidden: usize,
}

/// Sizes of a vision transformer.
///
/// Serialises to the object that [`from_json`](Self::from_json) reads.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "OwnFormat")]
pub struct ModelConfig {
    /// Native input size in pixels, `[height, width]`.
    pub image_size: [usize; 2],
    /// Side of the square patches.
    pub patch_size: usize,
    /// Colour channels.
    pub channels: usize,
    /// Frames of the native clip; 1 for pictures.
    pub frames: usize,
    /// Frames of one token; 1 for pictures.
    pub tubelet: usize,
    /// Width of the tokens, and of the embedding.
    pub hidden_size: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Width of the hidden layer of each MLP.
    pub mlp_hidden: usize,
    /// Added to the variance in every LayerNorm of the encoder.
    pub layer_norm_eps: f64,
    /// Whether the query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// Kind of position embedding.
    pub positions: Positions,
    /// Sizes of the predictor, where the model has one.
    pub predictor: Option<PredictorConfig>,
}

impl ModelConfig {
    /// Reads the `config.json` of a Hugging Face folder (`model_type` "ijepa"). Absent fields have the defaults of
    /// transformers' `IJepaConfig`; fields that do not change the embedding are ignored.
    pub fn from_hf_json(text: &str) -> Result<Self> {
        let object = parse_object(text)?;
        let fields = Fields::new(&object, "");
        match fields.text("model_type")? {
            Some("ijepa") => {}
            Some(other) => {
                return Err(Error::Unsupported(format!(
                    "model_type {:?} is not supported: only \"ijepa\" is",
                    excerpt(other)
                )));
            }
            None => {
                return Err(Error::BadConfig(
                    "the configuration has no model_type: a Hugging Face config.json of I-JEPA says \"ijepa\"".into(),
                ));
            }
        }
        match fields.text("hidden_act")? {
            None | Some("gelu") => {}
            Some(other) => {
                return Err(Error::Unsupported(format!(
                    "hidden_act {:?} is not supported: only \"gelu\" is",
                    excerpt(other)
                )));
            }
        }
        let patch = fields.pair("patch_size")?.unwrap_or([16, 16]);
        if patch[0] != patch[1] {
            return Err(Error::Unsupported(format!(
                "patch_size {patch:?} is not supported: patches must be square"
            )));
        }
        let config = Self {
            image_size: fields.pair("image_size")?.unwrap_or([224, 224]),
            patch_size: patch[0],
            channels: fields.size("num_channels")?.unwrap_or(3),
            frames: 1,
            tubelet: 1,
            hidden_size: fields.size("hidden_size")?.unwrap_or(768),
            layers: fields.size("num_hidden_layers")?.unwrap_or(12),
            heads: fields.size("num_attention_heads")?.unwrap_or(12),
            mlp_hidden: fields.size("intermediate_size")?.unwrap_or(3072),
            layer_norm_eps: fields.number("layer_norm_eps")?.unwrap_or(1e-12),
            qkv_bias: fields.flag("qkv_bias")?.unwrap_or(true),
            positions: Positions::Sincos,
            predictor: None,
        };
        config.validate()?;
        Ok(config)
    }

    /// Reads this library's own object: `imageSize` (a number or `[height, width]`), `patchSize`, `hiddenSize`, `layers`
    /// and `heads` are required; `channels` (3), `frames` (1), `tubelet` (1 for pictures, 2 for clips), `mlpRatio` (4),
    /// `layerNormEps` (1e-6), `qkvBias` (true), `positions` ("sincos") and `predictor` have the published defaults in
    /// parentheses. `predictor` is `{ hiddenSize (384), layers (12), heads (the encoder's), mlpRatio (4) }`, or null for a
    /// model without one. An unknown key is an error.
    pub fn from_json(text: &str) -> Result<Self> {
        let object = parse_object(text)?;
        let fields = Fields::new(&object, "");
        fields.only(&[
            "imageSize",
            "patchSize",
            "channels",
            "frames",
            "tubelet",
            "hiddenSize",
            "layers",
            "heads",
            "mlpRatio",
            "layerNormEps",
            "qkvBias",
            "positions",
            "predictor",
        ])?;
        let image_size = fields.required(fields.pair("imageSize")?, "imageSize")?;
        let patch_size = fields.required(fields.size("patchSize")?, "patchSize")?;
        let hidden_size = fields.required(fields.size("hiddenSize")?, "hiddenSize")?;
        let layers = fields.required(fields.size("layers")?, "layers")?;
        let heads = fields.required(fields.size("heads")?, "heads")?;
        let frames = fields.size("frames")?.unwrap_or(1);
        let predictor = match object.get("predictor") {
            Some(Value::Null) => None,
            None => Some(PredictorConfig::published(heads, 12)),
            Some(Value::Object(object)) => {
                let fields = Fields::new(object, "predictor.");
                fields.only(&["hiddenSize", "layers", "heads", "mlpRatio"])?;
                let hidden_size = fields.size("hiddenSize")?.unwrap_or(384);
                Some(PredictorConfig {
                    hidden_size,
                    layers: fields.size("layers")?.unwrap_or(12),
                    heads: fields.size("heads")?.unwrap_or(heads),
                    mlp_hidden: mlp_hidden(hidden_size, fields.number("mlpRatio")?.unwrap_or(4.0)),
                })
            }
            Some(other) => return Err(unexpected("predictor", "an object or null", other)),
        };
        let config = Self {
            image_size,
            patch_size,
            channels: fields.size("channels")?.unwrap_or(3),
            frames,
            tubelet: fields
                .size("tubelet")?
                .unwrap_or(if frames == 1 { 1 } else { 2 }),
            hidden_size,
            layers,
            heads,
            mlp_hidden: mlp_hidden(hidden_size, fields.number("mlpRatio")?.unwrap_or(4.0)),
            layer_norm_eps: fields.number("layerNormEps")?.unwrap_or(1e-6),
            qkv_bias: fields.flag("qkvBias")?.unwrap_or(true),
            positions: match fields.text("positions")? {
                None | Some("sincos") => Positions::Sincos,
                Some("rope") => Positions::Rope,
                Some("learned") => Positions::Learned,
                Some(other) => {
                    return Err(unexpected(
                        "positions",
                        "\"sincos\", \"rope\" or \"learned\"",
                        &Value::from(other),
                    ));
                }
            },
            predictor,
        };
        config.validate()?;
        Ok(config)
    }

    /// Reads whichever of the two formats `text` is: an object with `model_type` is Hugging Face's.
    pub fn from_any_json(text: &str) -> Result<Self> {
        match parse_object(text)?.contains_key("model_type") {
            true => Self::from_hf_json(text),
            false => Self::from_json(text),
        }
    }

    /// The `config.json` of a Hugging Face folder whose numbers are of `dtype` (`float32`), which
    /// [`from_hf_json`](Self::from_hf_json) and transformers read.
    pub fn to_hugging_face(&self, dtype: &str) -> Value {
        let [height, width] = self.image_size;
        let image_size = match height == width {
            true => json!(height),
            false => json!([height, width]),
        };
        json!({
            "architectures": ["IJepaModel"],
            "attention_probs_dropout_prob": 0.0,
            "dtype": dtype,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": self.hidden_size,
            "image_size": image_size,
            "initializer_range": 0.02,
            "intermediate_size": self.mlp_hidden,
            "layer_norm_eps": self.layer_norm_eps,
            "model_type": "ijepa",
            "num_attention_heads": self.heads,
            "num_channels": self.channels,
            "num_hidden_layers": self.layers,
            "patch_size": self.patch_size,
            "pooler_act": "tanh",
            "pooler_output_size": self.hidden_size,
            "qkv_bias": self.qkv_bias,
        })
    }

    /// A published size by name: `vit-SIZE[/PATCH][@IMAGE]`, as in `vit-tiny`, `vit-huge/14` or `vit-huge/16@448`.
    ///
    /// SIZE is `tiny`, `small`, `base`, `large`, `huge` or `giant` (or `ti`, `s`, `b`, `l`, `h`, `g`). PATCH is 14 for
    /// `huge` and else 16, IMAGE is 224, unless given. The spellings of published checkpoints are understood too:
    /// `vit-huge-14`, `vit_huge`, `ijepa-vith14`, in any case of letters.
    pub fn preset(name: &str) -> Result<Self> {
        let unknown = || {
            Error::BadConfig(format!(
                "there is no preset {:?}: the names are vit-tiny, vit-small, vit-base, vit-large, vit-huge and \
                 vit-giant, optionally with a patch and an image size as in vit-huge/14@224",
                excerpt(name)
            ))
        };
        let spelled = name.to_ascii_lowercase().replace('_', "-");
        let rest = spelled.strip_prefix("ijepa-").unwrap_or(&spelled);
        let rest = rest.strip_prefix("vit").ok_or_else(unknown)?;
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        let (rest, image) = match rest.split_once('@') {
            Some((rest, image)) => (rest, image.parse().map_err(|_| unknown())?),
            None => (rest, 224),
        };
        let (size, patch) = match rest.find(|c: char| !c.is_ascii_alphabetic()) {
            Some(end) => {
                let (size, patch) = rest.split_at(end);
                let patch = patch.strip_prefix(['/', '-']).unwrap_or(patch);
                (size, Some(patch.parse().map_err(|_| unknown())?))
            }
            None => (rest, None),
        };
        // Hidden size, layers, heads, MLP width, patch, predictor layers.
        let (hidden_size, layers, heads, mlp_hidden, default_patch, predictor_layers) = match size {
            "ti" | "tiny" => (192, 12, 3, 768, 16, 12),
            "s" | "small" => (384, 12, 6, 1536, 16, 12),
            "b" | "base" => (768, 12, 12, 3072, 16, 12),
            "l" | "large" => (1024, 24, 16, 4096, 16, 12),
            "h" | "huge" => (1280, 32, 16, 5120, 14, 12),
            "g" | "giant" => (1408, 40, 16, 6144, 16, 16),
            _ => return Err(unknown()),
        };
        let config = Self {
            image_size: [image, image],
            patch_size: patch.unwrap_or(default_patch),
            channels: 3,
            frames: 1,
            tubelet: 1,
            hidden_size,
            layers,
            heads,
            mlp_hidden,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            positions: Positions::Sincos,
            predictor: Some(PredictorConfig::published(heads, predictor_layers)),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks every bound and relation, so that no derived size can overflow and no number asks for an absurd allocation.
    pub fn validate(&self) -> Result<()> {
        let [height, width] = self.image_size;
        within("image height", height, MAX_IMAGE_SIZE)?;
        within("image width", width, MAX_IMAGE_SIZE)?;
        within("patch size", self.patch_size, MAX_PATCH_SIZE)?;
        within("number of channels", self.channels, MAX_CHANNELS)?;
        within("number of frames", self.frames, MAX_FRAMES)?;
        within("tubelet", self.tubelet, MAX_FRAMES)?;
        if !height.is_multiple_of(self.patch_size) || !width.is_multiple_of(self.patch_size) {
            return Err(Error::BadConfig(format!(
                "the image size {height}×{width} is not a multiple of the patch size {}",
                self.patch_size
            )));
        }
        if !self.frames.is_multiple_of(self.tubelet) {
            return Err(Error::BadConfig(format!(
                "{} frames are not a multiple of the tubelet {}",
                self.frames, self.tubelet
            )));
        }
        let tokens = token_count(self.grid());
        if tokens > MAX_TOKENS as u64 {
            return Err(Error::BadConfig(format!(
                "{tokens} tokens are more than the {MAX_TOKENS} that are possible"
            )));
        }
        // As f32, which is what LayerNorm computes in: a smaller one would vanish there.
        if !(f64::from(f32::MIN_POSITIVE)..=1.0).contains(&self.layer_norm_eps) {
            return Err(Error::BadConfig(format!(
                "the layer norm epsilon must be above 0 and at most 1, found {}",
                self.layer_norm_eps
            )));
        }
        let flat = self.frames == 1;
        transformer(
            "",
            [self.hidden_size, self.layers, self.heads, self.mlp_hidden],
            self.positions,
            flat,
        )?;
        if let Some(p) = &self.predictor {
            transformer(
                "predictor ",
                [p.hidden_size, p.layers, p.heads, p.mlp_hidden],
                self.positions,
                flat,
            )?;
        }
        let patch = self.hidden_size as u64 * self.patch_elements();
        if patch > MAX_TENSOR_ELEMENTS {
            return Err(Error::BadConfig(format!(
                "a patch embedding of {patch} numbers is more than the {MAX_TENSOR_ELEMENTS} that are possible"
            )));
        }
        let parameters = self.parameter_count() + self.predictor_parameter_count();
        if parameters > MAX_PARAMETERS {
            return Err(Error::BadConfig(format!(
                "a model of {parameters} parameters is larger than the {MAX_PARAMETERS} that are possible"
            )));
        }
        Ok(())
    }

    /// Patches of the native input, `[time, rows, columns]`.
    pub fn grid(&self) -> [usize; 3] {
        let [height, width] = self.image_size;
        [
            self.frames / self.tubelet,
            height / self.patch_size,
            width / self.patch_size,
        ]
    }

    /// Patches of an input of another size, which must be a multiple of the patch size.
    pub fn grid_for(&self, [height, width]: [usize; 2]) -> Result<[usize; 3]> {
        let patch = self.patch_size;
        let valid = |side: usize| side > 0 && side.is_multiple_of(patch);
        if !valid(height) || !valid(width) {
            let down = |side: usize| (side / patch).max(1) * patch;
            let up = |side: usize| side.max(1).div_ceil(patch).saturating_mul(patch);
            let (smaller, larger) = ([down(height), down(width)], [up(height), up(width)]);
            let nearest = match smaller == larger {
                true => format!("the nearest valid size is {}×{}", smaller[0], smaller[1]),
                false => format!(
                    "the nearest valid sizes are {}×{} and {}×{}",
                    smaller[0], smaller[1], larger[0], larger[1]
                ),
            };
            return Err(Error::BadInput(format!(
                "{height}×{width} pixels are not a multiple of the patch size {patch}: {nearest}"
            )));
        }
        let grid = [self.frames / self.tubelet, height / patch, width / patch];
        match token_count(grid) {
            tokens if tokens > MAX_TOKENS as u64 => Err(Error::BadInput(format!(
                "{height}×{width} pixels make {tokens} tokens, more than the {MAX_TOKENS} that are possible"
            ))),
            _ => Ok(grid),
        }
    }

    /// Tokens of the native input.
    pub fn tokens(&self) -> usize {
        self.grid().iter().product()
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// Whether tokens span time, so that the patch embedding is a convolution over it too.
    pub fn is_video(&self) -> bool {
        self.frames > 1 || self.tubelet > 1
    }

    /// Shape of the patch embedding's kernel: `[hidden, channels, (tubelet,) patch, patch]`.
    pub fn patch_kernel(&self) -> Vec<usize> {
        let mut shape = vec![self.hidden_size, self.channels];
        shape.extend(self.is_video().then_some(self.tubelet));
        shape.extend([self.patch_size, self.patch_size]);
        shape
    }

    /// Parameters of the encoder, its position table included.
    pub fn parameter_count(&self) -> u64 {
        let d = self.hidden_size as u64;
        let positions = match self.positions {
            Positions::Rope => 0,
            Positions::Sincos | Positions::Learned => self.tokens() as u64 * d,
        };
        let blocks =
            self.layers as u64 * block_parameters(d, self.mlp_hidden as u64, self.qkv_bias);
        d * self.patch_elements() + d + positions + blocks + 2 * d
    }

    /// Parameters of the predictor, its position table and mask token included; 0 where there is none.
    pub fn predictor_parameter_count(&self) -> u64 {
        let Some(predictor) = &self.predictor else {
            return 0;
        };
        let (d, p) = (self.hidden_size as u64, predictor.hidden_size as u64);
        let positions = match self.positions {
            Positions::Rope => 0,
            Positions::Sincos | Positions::Learned => self.tokens() as u64 * p,
        };
        let blocks = predictor.layers as u64
            * block_parameters(p, predictor.mlp_hidden as u64, self.qkv_bias);
        (d * p + p) + p + positions + blocks + 2 * p + (p * d + d)
    }

    /// Numbers in one patch of the input.
    fn patch_elements(&self) -> u64 {
        (self.channels * self.tubelet) as u64 * (self.patch_size * self.patch_size) as u64
    }
}

impl PredictorConfig {
    /// The predictor of every released I-JEPA: 384 wide, with as many heads as the encoder.
    fn published(heads: usize, layers: usize) -> Self {
        Self {
            hidden_size: 384,
            layers,
            heads,
            mlp_hidden: 1536,
        }
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.heads
    }
}

fn token_count(grid: [usize; 3]) -> u64 {
    grid.iter()
        .fold(1u64, |product, &side| product.saturating_mul(side as u64))
}

fn block_parameters(d: u64, mlp: u64, qkv_bias: bool) -> u64 {
    let norms = 2 * 2 * d;
    let attention = 3 * d * d + if qkv_bias { 3 * d } else { 0 } + d * d + d;
    norms + attention + (d * mlp + mlp) + (mlp * d + d)
}

fn within(what: &str, value: usize, max: usize) -> Result<()> {
    match (1..=max).contains(&value) {
        true => Ok(()),
        false => Err(Error::BadConfig(format!(
            "the {what} must be from 1 to {max}, found {value}"
        ))),
    }
}

fn transformer(
    whose: &str,
    [hidden, layers, heads, mlp]: [usize; 4],
    positions: Positions,
    flat: bool,
) -> Result<()> {
    within(&format!("{whose}hidden size"), hidden, MAX_HIDDEN_SIZE)?;
    within(&format!("{whose}number of layers"), layers, MAX_LAYERS)?;
    within(&format!("{whose}number of heads"), heads, MAX_HIDDEN_SIZE)?;
    within(&format!("{whose}MLP width"), mlp, MAX_MLP_HIDDEN)?;
    if !hidden.is_multiple_of(heads) {
        return Err(Error::BadConfig(format!(
            "the {whose}hidden size {hidden} is not a multiple of its {heads} heads"
        )));
    }
    if positions == Positions::Sincos && flat && !hidden.is_multiple_of(4) {
        return Err(Error::BadConfig(format!(
            "the {whose}hidden size {hidden} is not a multiple of 4, as sine and cosine of two axes need"
        )));
    }
    if positions == Positions::Rope && hidden / heads < 6 {
        return Err(Error::BadConfig(format!(
            "the {whose}head width {} is too small: rotary positions need a pair of channels for each of three axes",
            hidden / heads
        )));
    }
    Ok(())
}

/// `int(hidden · ratio)`, as the published code has it; a result that is out of bounds is left to `validate`.
fn mlp_hidden(hidden: usize, ratio: f64) -> usize {
    (hidden as f64 * ratio) as usize
}

/// A ratio that [`mlp_hidden`] turns back into `mlp`.
fn mlp_ratio(hidden: usize, mlp: usize) -> f64 {
    let ratio = mlp as f64 / hidden as f64;
    match mlp_hidden(hidden, ratio) < mlp {
        true => ratio.next_up(),
        false => ratio,
    }
}

/// What a [`ModelConfig`] serialises to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnFormat {
    image_size: [usize; 2],
    patch_size: usize,
    channels: usize,
    frames: usize,
    tubelet: usize,
    hidden_size: usize,
    layers: usize,
    heads: usize,
    mlp_ratio: f64,
    layer_norm_eps: f64,
    qkv_bias: bool,
    positions: Positions,
    predictor: Option<OwnPredictor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnPredictor {
    hidden_size: usize,
    layers: usize,
    heads: usize,
    mlp_ratio: f64,
}

impl From<ModelConfig> for OwnFormat {
    fn from(config: ModelConfig) -> Self {
        Self {
            image_size: config.image_size,
            patch_size: config.patch_size,
            channels: config.channels,
            frames: config.frames,
            tubelet: config.tubelet,
            hidden_size: config.hidden_size,
            layers: config.layers,
            heads: config.heads,
            mlp_ratio: mlp_ratio(config.hidden_size, config.mlp_hidden),
            layer_norm_eps: config.layer_norm_eps,
            qkv_bias: config.qkv_bias,
            positions: config.positions,
            predictor: config.predictor.map(|predictor| OwnPredictor {
                hidden_size: predictor.hidden_size,
                layers: predictor.layers,
                heads: predictor.heads,
                mlp_ratio: mlp_ratio(predictor.hidden_size, predictor.mlp_hidden),
            }),
        }
    }
}

fn parse_object(text: &str) -> Result<Map<String, Value>> {
    if text.len() > MAX_JSON_BYTES {
        return Err(Error::BadConfig(format!(
            "a configuration of {} bytes is longer than the {MAX_JSON_BYTES} that are possible",
            text.len()
        )));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(unexpected("the configuration", "a JSON object", &other)),
        Err(error) => Err(Error::BadConfig(format!(
            "the configuration is not readable JSON: {error}"
        ))),
    }
}

/// The fields of a JSON object, read with errors that name the key. An explicit null counts as absent.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    fn new(object: &'a Map<String, Value>, prefix: &'static str) -> Self {
        Self { object, prefix }
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(unexpected(
                    &format!("{}{key}", self.prefix),
                    expected,
                    value,
                )),
            },
        }
    }

    fn size(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number", as_size)
    }

    fn pair(&self, key: &str) -> Result<Option<[usize; 2]>> {
        self.read(
            key,
            "a whole number or a pair of them",
            |value| match value {
                Value::Array(pair) if pair.len() == 2 => {
                    Some([as_size(&pair[0])?, as_size(&pair[1])?])
                }
                value => as_size(value).map(|side| [side, side]),
            },
        )
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", Value::as_f64)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.read(key, "a string", Value::as_str)
    }

    fn required<T>(&self, value: Option<T>, key: &str) -> Result<T> {
        value.ok_or_else(|| {
            Error::BadConfig(format!("the configuration lacks {}{key}", self.prefix))
        })
    }

    fn only(&self, known: &[&str]) -> Result<()> {
        match self
            .object
            .keys()
            .find(|key| !known.contains(&key.as_str()))
        {
            None => Ok(()),
            Some(key) => Err(Error::BadConfig(format!(
                "the configuration has an unknown key {}: known are {}",
                excerpt(&format!("{}{key}", self.prefix)),
                known.join(", ")
            ))),
        }
    }
}

fn as_size(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

fn unexpected(what: &str, expected: &str, found: &Value) -> Error {
    Error::BadConfig(format!(
        "{what} must be {expected}, found {}",
        excerpt(&found.to_string())
    ))
}

/// The start of a text that somebody else wrote, short enough for a sentence.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<ModelConfig>) -> (&'static str, String) {
        let error = result.unwrap_err();
        (error.code(), error.to_string())
    }

    fn own(change: &str) -> Result<ModelConfig> {
        ModelConfig::from_json(&format!(
            r#"{{"imageSize":32,"patchSize":8,"hiddenSize":24,"layers":2,"heads":3{change}}}"#
        ))
    }

    #[test]
    fn presets_have_the_published_parameter_counts() {
        for (name, encoder) in [
            ("vit-tiny", 5_524_032),
            ("vit-small/16", 21_664_896),
            ("vit-base", 85_797_120),
            ("vit-large", 303_299_584),
            ("vit-huge", 630_762_240),
            ("vit-huge/16", 630_915_840),
            ("vit-huge/16@448", 630_915_840 + (784 - 196) * 1280),
            ("vit-giant", 1_011_368_576),
        ] {
            assert_eq!(
                ModelConfig::preset(name).unwrap().parameter_count(),
                encoder,
                "{name}"
            );
        }
        let huge = ModelConfig::preset("vit-huge").unwrap();
        assert!((22_300_000..22_400_000).contains(&huge.predictor_parameter_count()));
        assert_eq!(
            (huge.head_dim(), huge.predictor.unwrap().head_dim()),
            (80, 24)
        );
        let giant = ModelConfig::preset("vit-giant").unwrap();
        assert_eq!(
            (
                giant.head_dim(),
                giant.mlp_hidden,
                giant.predictor.unwrap().layers
            ),
            (88, 6144, 16)
        );
    }

    #[test]
    fn presets_have_several_spellings() {
        let huge = ModelConfig::preset("vit-huge/14@224").unwrap();
        for name in [
            "vit-huge",
            "vit-huge-14",
            "vit_huge/14",
            "ijepa-vith14",
            "ijepa_vith14",
            "ViT-H/14",
            "vit-h",
        ] {
            assert_eq!(ModelConfig::preset(name).as_ref(), Ok(&huge), "{name}");
        }
        for name in [
            "",
            "vit",
            "vit-",
            "huge",
            "vit-enormous",
            "vit-huge/",
            "vit-huge/x",
            "vit-huge@",
            "vit-huge/14@x",
            "vit-huge/0",
            "vit-huge/-14",
            "vit-huge/14@225",
            "vit-huge/99999999999999999999",
            "vit-huge/14@65534",
            "vit-hügé",
            "é",
        ] {
            assert_eq!(code(ModelConfig::preset(name)).0, "bad-config", "{name}");
        }
    }

    #[test]
    fn hf_fields_default_as_in_transformers() {
        let config = ModelConfig::from_hf_json(r#"{"model_type":"ijepa"}"#).unwrap();
        let base = ModelConfig {
            layer_norm_eps: 1e-12,
            predictor: None,
            ..ModelConfig::preset("vit-base").unwrap()
        };
        assert_eq!(config, base);
    }

    #[test]
    fn hf_sizes_may_be_pairs_and_other_fields_are_ignored() {
        let text = r#"{"model_type":"ijepa","image_size":[64,96],"patch_size":[8,8],"hidden_size":24,"num_hidden_layers":2,
            "num_attention_heads":3,"intermediate_size":100,"layer_norm_eps":1e-6,"qkv_bias":false,"num_channels":1,
            "pooler_output_size":null,"whatever":{"x":[1]}}"#;
        let config = ModelConfig::from_hf_json(text).unwrap();
        assert_eq!(
            (config.grid(), config.tokens(), config.head_dim()),
            ([1, 8, 12], 96, 8)
        );
        assert_eq!(
            (config.mlp_hidden, config.qkv_bias, config.layer_norm_eps),
            (100, false, 1e-6)
        );
        assert_eq!(config.patch_kernel(), [24, 1, 8, 8]);
    }

    #[test]
    fn other_hf_models_are_unsupported_by_name() {
        for (change, named) in [
            (r#""model_type":"vjepa2""#, "vjepa2"),
            (r#""model_type":"ijepa","hidden_act":"relu""#, "relu"),
            (r#""model_type":"ijepa","patch_size":[8,16]"#, "[8, 16]"),
        ] {
            let (code, message) = code(ModelConfig::from_hf_json(&format!("{{{change}}}")));
            assert_eq!(code, "unsupported");
            assert!(message.contains(named), "{message}");
        }
        assert_eq!(code(ModelConfig::from_hf_json("{}")).0, "bad-config");
    }

    #[test]
    fn own_fields_have_published_defaults() {
        let config = own("").unwrap();
        assert_eq!(
            (
                config.channels,
                config.frames,
                config.tubelet,
                config.mlp_hidden
            ),
            (3, 1, 1, 96)
        );
        assert_eq!(
            (config.layer_norm_eps, config.qkv_bias, config.positions),
            (1e-6, true, Positions::Sincos)
        );
        assert_eq!(
            config.predictor,
            Some(PredictorConfig {
                hidden_size: 384,
                layers: 12,
                heads: 3,
                mlp_hidden: 1536
            })
        );
        assert_eq!(own(r#","predictor":null"#).unwrap().predictor, None);
        let given = own(r#","predictor":{"hiddenSize":16,"layers":2,"heads":2,"mlpRatio":3}"#)
            .unwrap()
            .predictor;
        assert_eq!(
            given,
            Some(PredictorConfig {
                hidden_size: 16,
                layers: 2,
                heads: 2,
                mlp_hidden: 48
            })
        );
        assert_eq!(
            own(r#","frames":8,"positions":"rope""#).unwrap().grid(),
            [4, 4, 4]
        );
    }

    #[test]
    fn every_bad_value_is_named() {
        for (change, named) in [
            (r#","width":3"#, "width"),
            (r#","predictor":{"size":3}"#, "predictor.size"),
            (r#","predictor":7"#, "predictor"),
            (r#","predictor":{"heads":5}"#, "predictor hidden size 384"),
            (r#","channels":"three""#, "channels"),
            (r#","channels":-1"#, "channels"),
            (r#","channels":1.5"#, "channels"),
            (r#","channels":0"#, "channels"),
            (r#","channels":18446744073709551615"#, "channels"),
            (r#","frames":3,"tubelet":2"#, "tubelet"),
            (r#","mlpRatio":0"#, "MLP"),
            (r#","mlpRatio":-1"#, "MLP"),
            (r#","mlpRatio":1e300"#, "MLP"),
            (r#","layerNormEps":0"#, "epsilon"),
            (r#","layerNormEps":1e-50"#, "epsilon"),
            (r#","layerNormEps":2"#, "epsilon"),
            (r#","qkvBias":1"#, "qkvBias"),
            (r#","positions":"none""#, "positions"),
            (r#","heads":5"#, "heads"),
            (r#","heads":0"#, "heads"),
            (r#","hiddenSize":9"#, "multiple of 4"),
            (r#","hiddenSize":1000000"#, "hidden size"),
            (r#","hiddenSize":12,"positions":"rope""#, "head width"),
            (r#","layers":100000"#, "layers"),
            (r#","imageSize":33"#, "33"),
            (r#","imageSize":[32,0]"#, "width"),
            (r#","imageSize":[32,32,32]"#, "imageSize"),
            (r#","imageSize":65536"#, "tokens"),
            (
                r#","imageSize":1024,"patchSize":1024,"channels":1024"#,
                "patch embedding",
            ),
            (
                r#","hiddenSize":16384,"heads":16,"layers":1024"#,
                "parameters",
            ),
        ] {
            let (code, message) = code(own(change));
            assert_eq!(code, "bad-config", "{change}");
            assert!(message.contains(named), "{change}: {message}");
        }
        let (_, message) = code(ModelConfig::from_json(r#"{"imageSize":32,"patchSize":8}"#));
        assert!(message.contains("hiddenSize"), "{message}");
    }

    #[test]
    fn json_bombs_are_refused() {
        let deep = format!(
            r#"{{"model_type":"ijepa","x":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let long = format!(
            r#"{{"model_type":"ijepa","x":"{}"}}"#,
            "x".repeat(MAX_JSON_BYTES)
        );
        for text in [
            deep.as_str(),
            long.as_str(),
            "",
            "[]",
            "null",
            "{",
            "{}{}",
            r#"{"hidden_size":NaN}"#,
        ] {
            assert_eq!(code(ModelConfig::from_hf_json(text)).0, "bad-config");
            assert_eq!(code(ModelConfig::from_json(text)).0, "bad-config");
            assert_eq!(code(ModelConfig::from_any_json(text)).0, "bad-config");
        }
    }

    #[test]
    fn other_input_sizes_are_checked() {
        let config = ModelConfig::preset("vit-tiny").unwrap();
        assert_eq!(config.grid_for([448, 32]), Ok([1, 28, 2]));
        for (size, said) in [
            ([230, 224], "224×224 and 240×224"),
            ([0, 5], "the nearest valid size is 16×16"),
            ([17, 31], "16×16 and 32×32"),
            ([160_000, 160_000], "tokens"),
            ([usize::MAX, usize::MAX], "pixels"),
            ([usize::MAX - 15, usize::MAX - 15], "tokens"),
        ] {
            let error = config.grid_for(size).unwrap_err();
            assert_eq!(error.code(), "bad-input");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn every_mlp_width_survives_being_written_as_a_ratio() {
        for hidden in (4..=4096).step_by(12).chain([1280, 1408, 1664]) {
            for mlp in (1..=8192).step_by(61).chain([6144, 8192]) {
                assert_eq!(
                    mlp_hidden(hidden, mlp_ratio(hidden, mlp)),
                    mlp,
                    "{mlp} / {hidden}"
                );
            }
        }
    }
}
