//! Model configuration: what a model's sizes are, from every place that can say so. Every derived size is computed here
//! and nowhere else.
//!
//! Three sources give a [`ModelConfig`]: the `config.json` of a Hugging Face folder ([`ModelConfig::from_hf_json`]), this
//! library's own object ([`ModelConfig::from_json`]) and the name of a published size ([`ModelConfig::preset`]). All of
//! them [validate](ModelConfig::validate), so that the methods of a configuration that came from one of them can neither
//! overflow nor divide by zero.

mod lewm;

use serde::Serialize;
use serde_json::{Map, Value, json};

pub use lewm::LeWmConfig;

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
const MAX_MASK_TOKENS: usize = 1 << 8;
/// Levels of output of V-JEPA 2.1.
pub const LEVELS: usize = 4;
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

/// The published system that a model is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum System {
    /// I-JEPA: pictures. LeJEPA's encoder has the same form.
    #[serde(rename = "ijepa")]
    IJepa,
    /// V-JEPA 1: clips, with a fixed table of three axes.
    #[serde(rename = "vjepa")]
    VJepa,
    /// V-JEPA 2: clips, with rotary positions whose frequencies are tiled.
    #[serde(rename = "vjepa2")]
    VJepa2,
    /// V-JEPA 2.1: clips and pictures, with rotary positions that are rotations and scale with the grid, and four levels of output.
    #[serde(rename = "vjepa2.1")]
    VJepa21,
    /// LeWorldModel: pictures as single embeddings, and how actions change them. Its encoder is a ViT with a class token.
    #[serde(rename = "lewm")]
    LeWm,
}

/// Numbers that V-JEPA 2-AC's predictor is told of each frame besides its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Actions {
    /// Of an action; 7 as published: a change of position, of Euler angles, and of the gripper.
    pub action_size: usize,
    /// Of a state; 7 as published: position, Euler angles, gripper.
    pub state_size: usize,
}

/// Sizes of the transformer that predicts the embeddings of masked tokens, or, with actions, of the next frame.
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
    /// Number of mask tokens: 1 in I-JEPA, one for each kind of mask in V-JEPA.
    pub mask_tokens: usize,
    /// Levels of the encoder's output that it sees, one after the other: 4 in V-JEPA 2.1, 1 in its distilled models and elsewhere.
    pub levels: usize,
    /// Width of what it predicts: `levels` times the encoder's, but for distilled models, which predict their teacher's output.
    pub output_size: usize,
    /// V-JEPA 2-AC: what it is told of each frame. It then predicts frames from those before them, and has no mask tokens.
    pub actions: Option<Actions>,
}

/// Sizes of a vision transformer.
///
/// Serialises to the object that [`from_json`](Self::from_json) reads.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "OwnFormat")]
pub struct ModelConfig {
    /// The system, which decides what the sizes do not.
    pub system: System,
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
    /// Patches on a side of the grid to which V-JEPA 2.1 scales rows and columns before it rotates: that of its pretraining.
    pub rope_grid: Option<usize>,
    /// Sizes of the predictor of masked tokens, where the model has one.
    pub predictor: Option<PredictorConfig>,
    /// Sizes of what LeWorldModel has beside its encoder.
    pub lewm: Option<LeWmConfig>,
}

impl ModelConfig {
    /// A name of every model that the projects released, then of the sizes that are trained here only, for [`preset`](Self::preset).
    pub const PRESETS: [&str; 20] = [
        "ijepa-vit-huge/14",
        "ijepa-vit-huge/16@448",
        "ijepa-vit-giant/16",
        "vjepa-vitl16",
        "vjepa-vith16",
        "vjepa-vith16-384",
        "vjepa2-vitl-fpc64-256",
        "vjepa2-vith-fpc64-256",
        "vjepa2-vitg-fpc64-256",
        "vjepa2-vitg-fpc64-384",
        "vjepa2_1_vitb_dist_vitG_384",
        "vjepa2_1_vitl_dist_vitG_384",
        "vjepa2_1_vitg_384",
        "vjepa2_1_vitG_384",
        "vjepa2-ac-vit-giant",
        "lewm",
        "vit-tiny",
        "vit-small",
        "vit-base",
        "vit-large",
    ];

    /// Reads the `config.json` of a Hugging Face folder (`model_type` "ijepa" or "vjepa2"). Absent fields have the defaults of
    /// transformers' `IJepaConfig` and `VJEPA2Config`; fields that do not change the embedding are ignored.
    pub fn from_hf_json(text: &str) -> Result<Self> {
        let object = parse_object(text)?;
        let fields = Fields::new(&object, "");
        let video = match fields.text("model_type")? {
            Some("ijepa") => false,
            Some("vjepa2") => true,
            Some(other) => {
                return Err(Error::Unsupported(format!(
                    "model_type {:?} is not supported: \"ijepa\" and \"vjepa2\" are",
                    excerpt(other)
                )));
            }
            None => {
                return Err(Error::BadConfig(
                    "the configuration has no model_type: a Hugging Face config.json says \"ijepa\" or \"vjepa2\"".into(),
                ));
            }
        };
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
        let config = match video {
            true => Self::vjepa2_fields(&fields, patch[0])?,
            false => Self::ijepa_fields(&fields, patch[0])?,
        };
        config.validate()?;
        Ok(config)
    }

    fn ijepa_fields(fields: &Fields, patch_size: usize) -> Result<Self> {
        Ok(Self {
            system: System::IJepa,
            image_size: fields.pair("image_size")?.unwrap_or([224, 224]),
            patch_size,
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
            rope_grid: None,
            predictor: None,
            lewm: None,
        })
    }

    fn vjepa2_fields(fields: &Fields, patch_size: usize) -> Result<Self> {
        let hidden_size = fields.size("hidden_size")?.unwrap_or(1024);
        let width = fields.size("pred_hidden_size")?.unwrap_or(384);
        let ratio = |key| Ok(fields.number(key)?.unwrap_or(4.0));
        Ok(Self {
            system: System::VJepa2,
            image_size: fields.pair("crop_size")?.unwrap_or([256, 256]),
            patch_size,
            channels: fields.size("in_chans")?.unwrap_or(3),
            frames: fields.size("frames_per_clip")?.unwrap_or(64),
            tubelet: fields.size("tubelet_size")?.unwrap_or(2),
            hidden_size,
            layers: fields.size("num_hidden_layers")?.unwrap_or(24),
            heads: fields.size("num_attention_heads")?.unwrap_or(16),
            mlp_hidden: mlp_hidden(hidden_size, ratio("mlp_ratio")?),
            layer_norm_eps: fields.number("layer_norm_eps")?.unwrap_or(1e-6),
            qkv_bias: fields.flag("qkv_bias")?.unwrap_or(true),
            positions: Positions::Rope,
            rope_grid: None,
            predictor: Some(PredictorConfig {
                hidden_size: width,
                layers: fields.size("pred_num_hidden_layers")?.unwrap_or(12),
                heads: fields.size("pred_num_attention_heads")?.unwrap_or(12),
                mlp_hidden: mlp_hidden(width, ratio("pred_mlp_ratio")?),
                mask_tokens: fields.size("pred_num_mask_tokens")?.unwrap_or(10),
                levels: 1,
                output_size: hidden_size,
                actions: None,
            }),
            lewm: None,
        })
    }

    /// Reads this library's own object: `imageSize` (a number or `[height, width]`), `patchSize`, `hiddenSize`, `layers`
    /// and `heads` are required; `channels` (3), `frames` (1 for pictures, 16 for a system of clips), `tubelet` (1 for pictures, 2
    /// for clips), `mlpRatio` (4), `layerNormEps` (1e-6), `qkvBias` (true), `positions` (the system's), `system` and `predictor`
    /// have the published defaults in parentheses. Without `system`, clips with `"rope"` are V-JEPA 2's, clips otherwise V-JEPA 1's,
    /// and pictures I-JEPA's. `ropeGrid` is V-JEPA 2.1's (16 for patches of 16 pixels). `predictor` is `{ hiddenSize (384), layers (12), heads, mlpRatio (4), maskTokens, levels, outputSize }`,
    /// of which the others default to the system's, or null for a model without one. The system `"lewm"` has no such predictor, an
    /// epsilon of 1e-12, and [`lewm`](LeWmConfig), an object with an `actionSize`. An unknown key is an error.
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
            "system",
            "ropeGrid",
            "predictor",
            "lewm",
        ])?;
        let system = match fields.text("system")? {
            None => None,
            Some("ijepa") => Some(System::IJepa),
            Some("vjepa") => Some(System::VJepa),
            Some("vjepa2") => Some(System::VJepa2),
            Some("vjepa2.1") => Some(System::VJepa21),
            Some("lewm") => Some(System::LeWm),
            Some(other) => {
                return Err(unexpected(
                    "system",
                    "\"ijepa\", \"vjepa\", \"vjepa2\", \"vjepa2.1\" or \"lewm\"",
                    &Value::from(other),
                ));
            }
        };
        let positions = match fields.text("positions")? {
            None => None,
            Some("sincos") => Some(Positions::Sincos),
            Some("rope") => Some(Positions::Rope),
            Some("learned") => Some(Positions::Learned),
            Some(other) => {
                return Err(unexpected(
                    "positions",
                    "\"sincos\", \"rope\" or \"learned\"",
                    &Value::from(other),
                ));
            }
        };
        let clip = fields.size("frames")?.is_some_and(|frames| frames > 1)
            || fields.size("tubelet")?.is_some_and(|tubelet| tubelet > 1);
        let system = system.unwrap_or(match (positions, clip) {
            (Some(Positions::Rope), _) => System::VJepa2,
            (_, true) => System::VJepa,
            (_, false) => System::IJepa,
        });
        let image_size = fields.required(fields.pair("imageSize")?, "imageSize")?;
        let patch_size = fields.required(fields.size("patchSize")?, "patchSize")?;
        let hidden_size = fields.required(fields.size("hiddenSize")?, "hiddenSize")?;
        let layers = fields.required(fields.size("layers")?, "layers")?;
        let heads = fields.required(fields.size("heads")?, "heads")?;
        let frames = fields.size("frames")?.unwrap_or(system.frames());
        let published = PredictorConfig::published(system, hidden_size, heads, 12);
        let predictor = match object.get("predictor") {
            Some(Value::Null) => None,
            None => Some(published).filter(|_| system != System::LeWm),
            Some(Value::Object(object)) => {
                let fields = Fields::new(object, "predictor.");
                fields.only(&[
                    "hiddenSize",
                    "layers",
                    "heads",
                    "mlpRatio",
                    "maskTokens",
                    "levels",
                    "outputSize",
                    "actions",
                ])?;
                let actions = match object.get("actions") {
                    None | Some(Value::Null) => None,
                    Some(Value::Object(object)) => {
                        let fields = Fields::new(object, "predictor.actions.");
                        fields.only(&["actionSize", "stateSize"])?;
                        Some(Actions {
                            action_size: fields.size("actionSize")?.unwrap_or(7),
                            state_size: fields.size("stateSize")?.unwrap_or(7),
                        })
                    }
                    Some(other) => {
                        return Err(unexpected("predictor.actions", "an object or null", other));
                    }
                };
                let mask_tokens = match actions {
                    Some(_) => 0,
                    None => published.mask_tokens,
                };
                let width = fields.size("hiddenSize")?.unwrap_or(published.hidden_size);
                let levels = fields.size("levels")?.unwrap_or(published.levels);
                Some(PredictorConfig {
                    hidden_size: width,
                    layers: fields.size("layers")?.unwrap_or(published.layers),
                    heads: fields.size("heads")?.unwrap_or(published.heads),
                    mlp_hidden: mlp_hidden(width, fields.number("mlpRatio")?.unwrap_or(4.0)),
                    mask_tokens: fields.size("maskTokens")?.unwrap_or(mask_tokens),
                    levels,
                    output_size: fields
                        .size("outputSize")?
                        .unwrap_or(levels.saturating_mul(hidden_size)),
                    actions,
                })
            }
            Some(other) => return Err(unexpected("predictor", "an object or null", other)),
        };
        let lewm = match object.get("lewm") {
            None | Some(Value::Null) => None,
            Some(Value::Object(object)) => Some(LeWmConfig::read(object, hidden_size)?),
            Some(other) => return Err(unexpected("lewm", "an object", other)),
        };
        let config = Self {
            system,
            image_size,
            patch_size,
            channels: fields.size("channels")?.unwrap_or(3),
            frames,
            tubelet: fields.size("tubelet")?.unwrap_or(system.tubelet()),
            hidden_size,
            layers,
            heads,
            mlp_hidden: mlp_hidden(hidden_size, fields.number("mlpRatio")?.unwrap_or(4.0)),
            layer_norm_eps: fields
                .number("layerNormEps")?
                .unwrap_or(system.layer_norm_eps()),
            qkv_bias: fields.flag("qkvBias")?.unwrap_or(true),
            positions: positions.unwrap_or(system.positions()),
            rope_grid: match fields.size("ropeGrid")? {
                Some(side) => Some(side),
                None => system.rope_grid(patch_size),
            },
            predictor,
            lewm,
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
        if let (true, Some(predictor)) = (self.system == System::VJepa2, &self.predictor) {
            return json!({
                "architectures": ["VJEPA2Model"],
                "attention_probs_dropout_prob": 0.0,
                "crop_size": image_size,
                "drop_path_rate": 0.0,
                "dtype": dtype,
                "frames_per_clip": self.frames,
                "hidden_act": "gelu",
                "hidden_size": self.hidden_size,
                "in_chans": self.channels,
                "initializer_range": 0.02,
                "layer_norm_eps": self.layer_norm_eps,
                "mlp_ratio": mlp_ratio(self.hidden_size, self.mlp_hidden),
                "model_type": "vjepa2",
                "num_attention_heads": self.heads,
                "num_hidden_layers": self.layers,
                "patch_size": self.patch_size,
                "pred_hidden_size": predictor.hidden_size,
                "pred_mlp_ratio": mlp_ratio(predictor.hidden_size, predictor.mlp_hidden),
                "pred_num_attention_heads": predictor.heads,
                "pred_num_hidden_layers": predictor.layers,
                "pred_num_mask_tokens": predictor.mask_tokens,
                "qkv_bias": self.qkv_bias,
                "tubelet_size": self.tubelet,
            });
        }
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

    /// A published model by name.
    ///
    /// I-JEPA: `vit-SIZE[/PATCH][@IMAGE]`, as in `vit-tiny`, `vit-huge/14` or `vit-huge/16@448`. SIZE is `tiny`, `small`, `base`,
    /// `large`, `huge` or `giant` (or `ti`, `s`, `b`, `l`, `h`, `g`). PATCH is 14 for `huge` and else 16, IMAGE is 224, unless given.
    /// V-JEPA: the same with the system before it, as in `vjepa-vit-huge@384`, `vjepa2-vit-giant@384` or `vjepa2.1-vit-base`, where
    /// IMAGE is 224, 256 and 384 unless given, and SIZE may also be `gigantic` (`G`); clips are of 16, 64 and 16 frames, or of N
    /// with `-fpcN`, as in `vjepa2-vitl-fpc16-256`. The spellings of published checkpoints are understood too: `vit-huge-14`,
    /// `vit_huge`, `ijepa-vith14`, `vjepa2-vitg-fpc64-384`, `vjepa2_1_vitb_dist_vitG_384`, in any case of letters but for g and G.
    /// `vjepa2-ac-vit-giant` is V-JEPA 2-AC, and `lewm` LeWorldModel.
    pub fn preset(name: &str) -> Result<Self> {
        let unknown = || {
            Error::BadConfig(format!(
                "there is no preset {:?}: the names are vit-tiny, vit-small, vit-base, vit-large, vit-huge and vit-giant, \
                 optionally with a patch and an image size as in vit-huge/14@224, for clips the same after vjepa-, vjepa2- or \
                 vjepa2.1-, vjepa2-ac-vit-giant and lewm",
                excerpt(name)
            ))
        };
        let spelled = name.replace('_', "-");
        let lower = spelled.to_ascii_lowercase();
        if lower == System::LeWm.name() {
            return Ok(Self::lewm());
        }
        if let Some(size) = lower.strip_prefix("vjepa2-ac-") {
            let mut config = Self::preset(&format!("vjepa2-{size}"))?;
            config.predictor = Some(PredictorConfig::with_actions(config.hidden_size));
            return Ok(config);
        }
        const SYSTEMS: [(&str, System); 6] = [
            ("ijepa-", System::IJepa),
            ("vjepa2.1-", System::VJepa21),
            ("vjepa2-1-", System::VJepa21),
            ("vjepa2-", System::VJepa2),
            ("vjepa1-", System::VJepa),
            ("vjepa-", System::VJepa),
        ];
        let (prefix, system) = SYSTEMS
            .into_iter()
            .find(|(prefix, _)| lower.starts_with(prefix))
            .unwrap_or(("", System::IJepa));
        let rest = lower[prefix.len()..]
            .strip_prefix("vit")
            .ok_or_else(unknown)?;
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let (size, rest) = rest.split_at(letters);
        let gigantic = size == "gigantic"
            || size == "g" && spelled[spelled.len() - rest.len() - 1..].starts_with('G');
        // "vitb-dist-vitG-384" says whose embeddings it was trained on.
        let (distilled, rest) = match rest.strip_prefix("-dist-vitg") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (rest, frames) = match rest.strip_prefix("-fpc") {
            Some(rest) => {
                let (frames, rest) = rest.split_at(rest.find('-').unwrap_or(rest.len()));
                (rest, frames.parse().map_err(|_| unknown())?)
            }
            None => (
                rest,
                if system == System::VJepa2 {
                    64
                } else {
                    system.frames()
                },
            ),
        };
        // "-384" is a size and "-14" a patch.
        let (rest, image) = match (rest.split_once('@'), rest.rsplit_once('-')) {
            (Some((rest, image)), _) => (rest, Some(image)),
            (None, Some((rest, image))) if system != System::IJepa && image.len() > 2 => {
                (rest, Some(image))
            }
            (None, _) => (rest, None),
        };
        let image = match image {
            Some(image) => image.parse().map_err(|_| unknown())?,
            None => match system {
                System::IJepa | System::VJepa | System::LeWm => 224,
                System::VJepa2 => 256,
                System::VJepa21 => 384,
            },
        };
        let patch = match rest.strip_prefix(['/', '-']).unwrap_or(rest) {
            "" if rest.is_empty() => None,
            patch => Some(patch.parse().map_err(|_| unknown())?),
        };
        let video = system != System::IJepa;
        // Hidden size, layers, heads, MLP width, patch, predictor layers.
        let (hidden_size, layers, heads, mlp_hidden, default_patch, predictor_layers) = match size {
            "ti" | "tiny" => (192, 12, 3, 768, 16, 12),
            "s" | "small" => (384, 12, 6, 1536, 16, 12),
            "b" | "base" => (768, 12, 12, 3072, 16, 12),
            "l" | "large" => (1024, 24, 16, 4096, 16, 12),
            "h" | "huge" => (1280, 32, 16, 5120, if video { 16 } else { 14 }, 12),
            _ if gigantic && video => (1664, 48, 26, 8192, 16, 24),
            // The video models have heads 64 wide, I-JEPA's 88.
            "g" | "giant" if system == System::VJepa21 => (1408, 40, 22, 6144, 16, 24),
            "g" | "giant" if video => (1408, 40, 22, 6144, 16, 12),
            "g" | "giant" => (1408, 40, 16, 6144, 16, 16),
            _ => return Err(unknown()),
        };
        let mut predictor =
            PredictorConfig::published(system, hidden_size, heads, predictor_layers);
        // V-JEPA 2.1 was trained at these two sizes; the smaller ones are distilled from the gigantic one, of width 1664.
        if system == System::VJepa21 && (distilled || hidden_size < 1408) {
            predictor.levels = 1;
            predictor.output_size = 1664;
        }
        let config = Self {
            system,
            image_size: [image, image],
            patch_size: patch.unwrap_or(default_patch),
            channels: 3,
            frames,
            tubelet: system.tubelet(),
            hidden_size,
            layers,
            heads,
            mlp_hidden,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            positions: system.positions(),
            rope_grid: system.rope_grid(patch.unwrap_or(default_patch)),
            predictor: Some(predictor),
            lewm: None,
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
        let flat = !self.is_video();
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
        self.check_system()?;
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

    /// What the system allows.
    fn check_system(&self) -> Result<()> {
        let bad = |why: String| Err(Error::BadConfig(why));
        let name = self.system.name();
        if !self.is_video() && (self.frames > 1 || self.tubelet > 1) {
            return bad(format!(
                "{name} is of pictures, and the configuration has {} frames in tubelets of {}",
                self.frames, self.tubelet
            ));
        }
        let fitting: &[Positions] = match self.system {
            System::IJepa => &[Positions::Sincos, Positions::Learned],
            System::VJepa => &[Positions::Sincos],
            System::LeWm => &[Positions::Learned],
            System::VJepa2 | System::VJepa21 => &[Positions::Rope],
        };
        if !fitting.contains(&self.positions) {
            return bad(format!(
                "{name} does not have these positions: {:?}",
                self.positions
            ));
        }
        if self.rope_grid.is_some() != (self.system == System::VJepa21) {
            return bad(format!(
                "ropeGrid is for vjepa2.1, and the system is {name}"
            ));
        }
        if let Some(side) = self.rope_grid {
            within("ropeGrid", side, MAX_IMAGE_SIZE)?;
        }
        if self.system == System::VJepa21 && self.layers < LEVELS {
            return bad(format!(
                "{name} has {LEVELS} levels of output, and {} layers do not",
                self.layers
            ));
        }
        match (&self.lewm, self.system == System::LeWm) {
            (Some(_), false) => return bad(format!("lewm is for the system lewm, not for {name}")),
            (None, true) => return bad("the system lewm needs lewm, with an actionSize".into()),
            (Some(lewm), true) if self.predictor.is_none() => lewm.check()?,
            (Some(_), true) => return bad("the sizes of lewm's predictor are in lewm".into()),
            (None, false) => {}
        }
        let Some(predictor) = &self.predictor else {
            return Ok(());
        };
        match predictor.actions {
            None => within(
                "number of the predictor's mask tokens",
                predictor.mask_tokens,
                MAX_MASK_TOKENS,
            )?,
            Some(_) if self.system != System::VJepa2 => {
                return bad(format!(
                    "predictors with actions are for vjepa2, and the system is {name}"
                ));
            }
            Some(_) if predictor.mask_tokens > 0 => {
                return bad("a predictor with actions has no mask tokens".into());
            }
            Some(actions) => {
                within("size of an action", actions.action_size, MAX_HIDDEN_SIZE)?;
                within("size of a state", actions.state_size, MAX_HIDDEN_SIZE)?;
            }
        }
        within(
            "width of the predictor's output",
            predictor.output_size,
            LEVELS * MAX_HIDDEN_SIZE,
        )?;
        let plain = predictor.levels == 1 && predictor.output_size == self.hidden_size;
        if self.system == System::IJepa && predictor.mask_tokens != 1 {
            return bad(format!(
                "{name} has one mask token, not {}",
                predictor.mask_tokens
            ));
        }
        match self.system {
            System::VJepa21 if [1, LEVELS].contains(&predictor.levels) => Ok(()),
            System::VJepa21 => bad(format!(
                "a predictor of {name} sees 1 or {LEVELS} levels, not {}",
                predictor.levels
            )),
            _ if plain => Ok(()),
            _ => bad(format!(
                "a predictor of {name} sees one level and predicts as much, not {} and a width of {}",
                predictor.levels, predictor.output_size
            )),
        }
    }

    /// Which blocks' outputs make up the levels, the last block included: of V-JEPA 2.1 four, of others one.
    pub fn level_layers(&self) -> Vec<usize> {
        match (self.system, self.layers) {
            // Published so, with a third level that is not evenly spaced.
            (System::VJepa21, 48) => vec![11, 23, 37, 47],
            (System::VJepa21, layers) => (1..=LEVELS)
                .map(|level| level * layers / LEVELS - 1)
                .collect(),
            (_, layers) => vec![layers - 1],
        }
    }

    /// Time steps of a clip of so many frames. One frame fewer than a tubelet needs is repeated, as Hugging Face does; V-JEPA 2.1 has
    /// a patch embedding for single pictures.
    pub fn steps_of(&self, frames: usize) -> Result<usize> {
        match frames {
            0 => Err(Error::BadInput(
                "a clip of no frames cannot be embedded".into(),
            )),
            1 => Ok(1),
            frames if frames > MAX_FRAMES => Err(Error::BadInput(format!(
                "a clip of {frames} frames is longer than the {MAX_FRAMES} that are possible"
            ))),
            frames if frames.is_multiple_of(self.tubelet) => Ok(frames / self.tubelet),
            frames => Err(Error::BadInput(format!(
                "a clip of {frames} frames cannot be cut into tubelets of {}: give {} or {}",
                self.tubelet,
                (frames / self.tubelet).max(1) * self.tubelet,
                frames.div_ceil(self.tubelet) * self.tubelet
            ))),
        }
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

    /// Patches of an input of the native number of frames and another size, which must be a multiple of the patch size.
    pub fn grid_for(&self, size: [usize; 2]) -> Result<[usize; 3]> {
        self.grid_of(self.frames, size)
    }

    /// Patches of an input of another number of frames and another size.
    pub fn grid_of(&self, frames: usize, [height, width]: [usize; 2]) -> Result<[usize; 3]> {
        let steps = self.steps_of(frames)?;
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
        let grid = [steps, height / patch, width / patch];
        match token_count(grid) {
            tokens if tokens > MAX_TOKENS as u64 => Err(Error::BadInput(format!(
                "{frames} × {height}×{width} pixels make {tokens} tokens, more than the {MAX_TOKENS} that are possible"
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
        !matches!(self.system, System::IJepa | System::LeWm)
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
        let one = d * self.patch_elements() + d + positions + blocks + 2 * d;
        match self.system {
            // A patch embedding of pictures, two tokens of modality, and three norms more.
            System::VJepa21 => {
                one + d * self.patch_elements() / self.tubelet as u64 + d + 2 * d + 3 * 2 * d
            }
            // A class token and its position.
            System::LeWm => one + 2 * d,
            _ => one,
        }
    }

    /// Parameters of the predictor, its position table and mask token included, or of everything that LeWorldModel has beside its
    /// encoder; 0 where there is none.
    pub fn predictor_parameter_count(&self) -> u64 {
        if let Some(lewm) = &self.lewm {
            return lewm.parameter_count(self.hidden_size as u64);
        }
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
        let masks = predictor.mask_tokens as u64 * p;
        let (seen, out) = (predictor.levels as u64 * d, predictor.output_size as u64);
        let embed = match predictor.levels {
            1 => d * p + p,
            _ => seen * d + d + d * p + p,
        };
        let rest = match self.system {
            System::VJepa21 => 2 * p + (p * out + out),
            _ => 0,
        };
        let told = predictor.actions.map_or(0, |actions| {
            (actions.action_size + actions.state_size + 2) as u64 * p
        });
        embed + masks + positions + blocks + 2 * p + (p * out + out) + rest + told
    }

    /// Whether a predictor of masked tokens is described.
    pub fn predicts_masked(&self) -> bool {
        let predictor = self.predictor.as_ref();
        predictor.is_some_and(|predictor| predictor.actions.is_none())
    }

    /// Whether a predictor is described, of masked tokens or of what actions do.
    pub fn has_predictor(&self) -> bool {
        self.predictor.is_some() || self.lewm.is_some()
    }

    /// Numbers in one patch of the input.
    fn patch_elements(&self) -> u64 {
        (self.channels * self.tubelet) as u64 * (self.patch_size * self.patch_size) as u64
    }
}

impl System {
    /// As in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::IJepa => "ijepa",
            Self::VJepa => "vjepa",
            Self::VJepa2 => "vjepa2",
            Self::VJepa21 => "vjepa2.1",
            Self::LeWm => "lewm",
        }
    }

    /// The epsilon of published encoders.
    fn layer_norm_eps(self) -> f64 {
        match self {
            Self::LeWm => 1e-12,
            _ => 1e-6,
        }
    }

    /// Frames of a clip in training.
    fn frames(self) -> usize {
        match self {
            Self::IJepa | Self::LeWm => 1,
            Self::VJepa | Self::VJepa2 | Self::VJepa21 => 16,
        }
    }

    fn tubelet(self) -> usize {
        match self {
            Self::IJepa | Self::LeWm => 1,
            Self::VJepa | Self::VJepa2 | Self::VJepa21 => 2,
        }
    }

    /// V-JEPA 2.1 was pretrained on 256 pixels, or on 252 with patches of 14.
    fn rope_grid(self, patch_size: usize) -> Option<usize> {
        (self == Self::VJepa21).then(|| (256 / patch_size.max(1)).max(1))
    }

    fn positions(self) -> Positions {
        match self {
            Self::IJepa | Self::VJepa => Positions::Sincos,
            Self::VJepa2 | Self::VJepa21 => Positions::Rope,
            Self::LeWm => Positions::Learned,
        }
    }
}

impl PredictorConfig {
    /// The predictor of released models: 384 wide; with as many heads as the encoder in I-JEPA and V-JEPA 1, with 12 later.
    fn published(system: System, encoder: usize, heads: usize, layers: usize) -> Self {
        let levels = if system == System::VJepa21 { LEVELS } else { 1 };
        let (mask_tokens, heads) = match system {
            System::IJepa | System::LeWm => (1, heads),
            System::VJepa => (2, heads),
            System::VJepa2 => (10, 12),
            System::VJepa21 => (8, 12),
        };
        Self {
            hidden_size: 384,
            layers,
            heads,
            mlp_hidden: 1536,
            mask_tokens,
            levels,
            output_size: levels.saturating_mul(encoder),
            actions: None,
        }
    }

    /// That of V-JEPA 2-AC.
    fn with_actions(encoder: usize) -> Self {
        Self {
            hidden_size: 1024,
            layers: 24,
            heads: 16,
            mlp_hidden: 4096,
            mask_tokens: 0,
            levels: 1,
            output_size: encoder,
            actions: Some(Actions {
                action_size: 7,
                state_size: 7,
            }),
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
    let width = hidden / heads;
    if positions == Positions::Rope && (width < 6 || !width.is_multiple_of(2)) {
        return Err(Error::BadConfig(format!(
            "the {whose}head width {width} does not do: rotary positions need a pair of channels for each of three axes, and pairs only"
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
    system: System,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_grid: Option<usize>,
    predictor: Option<OwnPredictor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lewm: Option<LeWmConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnPredictor {
    hidden_size: usize,
    layers: usize,
    heads: usize,
    mlp_ratio: f64,
    mask_tokens: usize,
    levels: usize,
    output_size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    actions: Option<Actions>,
}

impl From<ModelConfig> for OwnFormat {
    fn from(config: ModelConfig) -> Self {
        Self {
            system: config.system,
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
            rope_grid: config.rope_grid,
            predictor: config.predictor.map(|predictor| OwnPredictor {
                hidden_size: predictor.hidden_size,
                layers: predictor.layers,
                heads: predictor.heads,
                mlp_ratio: mlp_ratio(predictor.hidden_size, predictor.mlp_hidden),
                mask_tokens: predictor.mask_tokens,
                levels: predictor.levels,
                output_size: predictor.output_size,
                actions: predictor.actions,
            }),
            lewm: config.lewm,
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
    fn presets_of_clips_have_the_published_parameter_counts() {
        for (name, encoder, predictor) in [
            ("vjepa2-vit-tiny", 5_633_856, None),
            ("vjepa2-vit-small", 21_884_544, None),
            ("vjepa2-vit-base", 86_236_416, None),
            ("vjepa2-vitl-fpc64-256", 303_885_312, Some(22_086_016)),
            ("vjepa2-vith-fpc64-256", 631_648_000, Some(22_282_880)),
            ("vjepa2-vitg-fpc64-384", 1_012_173_952, Some(22_381_312)),
            ("vjepa2_1_vitb_dist_vitG_384", 86_833_152, Some(22_874_752)),
            ("vjepa2_1_vitl_dist_vitG_384", 304_680_960, Some(22_973_056)),
            ("vjepa2_1_vitg_384", 1_013_267_968, Some(55_400_704)),
            ("vjepa2_1_vitG_384", 1_845_216_768, Some(59_433_472)),
        ] {
            let config = ModelConfig::preset(name).unwrap();
            assert_eq!(config.parameter_count(), encoder, "{name}");
            if let Some(count) = predictor {
                assert_eq!(config.predictor_parameter_count(), count, "{name}");
            }
        }
        let of = |name| {
            let c = ModelConfig::preset(name).unwrap();
            (c.image_size[0], c.frames, c.heads, c.head_dim(), c.grid())
        };
        assert_eq!(of("vjepa2-vitg-fpc64-384"), (384, 64, 22, 64, [32, 24, 24]));
        assert_eq!(of("vjepa2-vitl-fpc16-256"), (256, 16, 16, 64, [8, 16, 16]));
        assert_eq!(of("vjepa-vitl16"), (224, 16, 16, 64, [8, 14, 14]));
        assert_eq!(of("vjepa-vith16-384"), (384, 16, 16, 80, [8, 24, 24]));
        assert_eq!(of("vjepa2.1-vit-base"), (384, 16, 12, 64, [8, 24, 24]));
        for (name, layers) in [
            ("vjepa2.1-vit-base", [2, 5, 8, 11]),
            ("vjepa2.1-vit-large", [5, 11, 17, 23]),
            ("vjepa2.1-vit-giant", [9, 19, 29, 39]),
            ("vjepa2.1-vit-gigantic", [11, 23, 37, 47]),
        ] {
            assert_eq!(
                ModelConfig::preset(name).unwrap().level_layers(),
                layers,
                "{name}"
            );
        }
    }

    #[test]
    fn presets_of_released_models_have_the_published_shapes() {
        // Encoder: width, layers, heads, MLP. Predictor: layers, heads, mask tokens, levels, width of what it predicts.
        let [large, huge] = [[1024, 24, 16, 4096], [1280, 32, 16, 5120]];
        let giant = [1408, 40, 22, 6144];
        for (names, encoder, predictor) in [
            (
                &["ijepa-vith14", "ijepa-vith16@448"][..],
                huge,
                [12, 16, 1, 1, 1280],
            ),
            (
                &["ijepa-vitg16"],
                [1408, 40, 16, 6144],
                [16, 16, 1, 1, 1408],
            ),
            (&["vjepa-vitl16"], large, [12, 16, 2, 1, 1024]),
            (
                &["vjepa-vith16", "vjepa-vith16-384"],
                huge,
                [12, 16, 2, 1, 1280],
            ),
            (
                &[
                    "vjepa2-vitl-fpc64-256",
                    "vjepa2-vitl-fpc16-256",
                    "vjepa2-vitl-fpc32-256",
                ],
                large,
                [12, 12, 10, 1, 1024],
            ),
            (&["vjepa2-vith-fpc64-256"], huge, [12, 12, 10, 1, 1280]),
            (
                &[
                    "vjepa2-vitg-fpc64-256",
                    "vjepa2-vitg-fpc64-384",
                    "vjepa2-vitg-fpc32-384",
                ],
                giant,
                [12, 12, 10, 1, 1408],
            ),
            (
                &["vjepa2_1_vitb_dist_vitG_384"],
                [768, 12, 12, 3072],
                [12, 12, 8, 1, 1664],
            ),
            (
                &["vjepa2_1_vitl_dist_vitG_384"],
                large,
                [12, 12, 8, 1, 1664],
            ),
            (&["vjepa2_1_vitg_384"], giant, [24, 12, 8, 4, 4 * 1408]),
            (
                &["vjepa2_1_vitG_384"],
                [1664, 48, 26, 8192],
                [24, 12, 8, 4, 4 * 1664],
            ),
        ] {
            for name in names {
                let config = ModelConfig::preset(name).unwrap();
                let sizes = [
                    config.hidden_size,
                    config.layers,
                    config.heads,
                    config.mlp_hidden,
                ];
                assert_eq!(sizes, encoder, "{name}");
                let p = config.predictor.unwrap();
                let sizes = [p.layers, p.heads, p.mask_tokens, p.levels, p.output_size];
                assert_eq!(sizes, predictor, "{name}");
                assert_eq!((p.hidden_size, p.mlp_hidden), (384, 1536), "{name}");
            }
        }
        let acting = ModelConfig::preset("vjepa2-ac-vitg").unwrap();
        let p = acting.predictor.unwrap();
        assert_eq!(
            [p.hidden_size, p.layers, p.heads, p.mlp_hidden],
            [1024, 24, 16, 4096]
        );
    }

    #[test]
    fn the_predictor_with_actions_has_the_published_parameter_count() {
        let config = ModelConfig::preset("vjepa2-ac-vit-giant").unwrap();
        assert_eq!(config.validate(), Ok(()));
        // The published count includes the encoder of extrinsics, which is not used.
        let extrinsics = 6 * 1024 + 1024;
        assert_eq!(config.predictor_parameter_count(), 305_220_992 - extrinsics);
        let again = ModelConfig::from_json(&serde_json::to_string(&config).unwrap());
        assert_eq!(again, Ok(config));
    }

    #[test]
    fn le_world_model_has_the_published_parameter_counts() {
        let config = ModelConfig::preset("lewm").unwrap();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.parameter_count(), 5_501_376);
        let rest = config.predictor_parameter_count();
        assert_eq!(rest, 2 * 792_768 + 156_206 + 10_791_360);
        assert_eq!(config.parameter_count() + rest, 18_034_478);
        assert_eq!(ModelConfig::preset("LeWM").as_ref(), Ok(&config));
        let written = r#"{"system":"lewm","imageSize":224,"patchSize":14,"hiddenSize":192,"layers":12,"heads":3,
            "lewm":{"actionSize":10}}"#;
        assert_eq!(ModelConfig::from_json(written).as_ref(), Ok(&config));
        let again = ModelConfig::from_json(&serde_json::to_string(&config).unwrap());
        assert_eq!(again, Ok(config));
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
            (r#""model_type":"vit""#, "vit"),
            (r#""model_type":"ijepa","hidden_act":"relu""#, "relu"),
            (r#""model_type":"vjepa2","hidden_act":"silu""#, "silu"),
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
                mlp_hidden: 1536,
                mask_tokens: 1,
                levels: 1,
                output_size: 24,
                actions: None
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
                mlp_hidden: 48,
                mask_tokens: 1,
                levels: 1,
                output_size: 24,
                actions: None
            })
        );
        for (change, system, grid) in [
            (
                r#","frames":8,"positions":"rope""#,
                System::VJepa2,
                [4, 4, 4],
            ),
            (r#","frames":6"#, System::VJepa, [3, 4, 4]),
            (r#","frames":1"#, System::IJepa, [1, 4, 4]),
            (
                r#","system":"vjepa2","predictor":null"#,
                System::VJepa2,
                [8, 4, 4],
            ),
        ] {
            let config = own(change).unwrap();
            assert_eq!((config.system, config.grid()), (system, grid), "{change}");
        }
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
            (r#","system":"vjepa3""#, "system"),
            (r#","system":"ijepa","frames":2"#, "ijepa"),
            (
                r#","predictor":{"heads":3,"actions":{}}"#,
                "predictors with actions are for vjepa2",
            ),
            (
                r#","positions":"rope","predictor":{"hiddenSize":36,"heads":3,"actions":{"actionSize":0}}"#,
                "size of an action",
            ),
            (
                r#","positions":"rope","predictor":{"hiddenSize":36,"heads":3,"maskTokens":2,"actions":{}}"#,
                "no mask tokens",
            ),
            (
                r#","positions":"rope","predictor":{"hiddenSize":36,"heads":3,"actions":{"size":2}}"#,
                "predictor.actions.size",
            ),
            (r#","system":"lewm""#, "actionSize"),
            (r#","system":"lewm","lewm":{}"#, "lewm.actionSize"),
            (r#","system":"lewm","lewm":3"#, "lewm"),
            (
                r#","system":"lewm","lewm":{"actionSize":0}"#,
                "action block",
            ),
            (
                r#","system":"lewm","lewm":{"actionSize":2,"heads":16384,"headDim":16384}"#,
                "heads",
            ),
            (
                r#","system":"lewm","lewm":{"actionSize":2,"size":3}"#,
                "lewm.size",
            ),
            (
                r#","system":"lewm","lewm":{"actionSize":2},"predictor":{"heads":3}"#,
                "in lewm",
            ),
            (
                r#","system":"lewm","lewm":{"actionSize":2},"frames":4"#,
                "pictures",
            ),
            (
                r#","system":"lewm","lewm":{"actionSize":2},"positions":"sincos""#,
                "positions",
            ),
            (r#","lewm":{"actionSize":2}"#, "not for ijepa"),
            (r#","system":"vjepa2","positions":"sincos""#, "vjepa2"),
            (r#","system":"vjepa2.1""#, "levels"),
            (r#","system":"vjepa2","ropeGrid":16"#, "ropeGrid"),
            (
                r#","system":"vjepa2","predictor":{"levels":4}"#,
                "one level",
            ),
            (
                r#","system":"vjepa2","predictor":{"maskTokens":0}"#,
                "mask tokens",
            ),
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
    fn frames_become_steps() {
        let config = own(r#","system":"vjepa2","predictor":null"#).unwrap();
        for (frames, steps) in [(1, 1), (2, 1), (4, 2), (64, 32)] {
            assert_eq!(config.grid_of(frames, [32, 48]), Ok([steps, 4, 6]));
        }
        for (frames, said) in [
            (0, "no frames"),
            (3, "give 2 or 4"),
            (5, "give 4 or 6"),
            (5_000, "longer"),
        ] {
            let error = config.grid_of(frames, [32, 32]).unwrap_err();
            assert_eq!(error.code(), "bad-input");
            assert!(error.to_string().contains(said), "{error}");
        }
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
