//! The encoder of every JEPA, context or target: a plain ViT, without a class token but for LeWorldModel's. Patches, of one frame or of a tubelet of
//! several, through pre-norm blocks and a final norm.
//!
//! - I-JEPA: Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture" (arXiv 2301.08243),
//!   as published in facebookresearch/ijepa. A fixed sine-cosine table of two axes is added to the patches.
//! - V-JEPA 1: Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (arXiv 2404.08471),
//!   facebookresearch/jepa. The table has three axes.
//! - V-JEPA 2: Assran et al. (arXiv 2506.09985), facebookresearch/vjepa2. No table; queries and keys are turned by their positions.
//! - V-JEPA 2.1 (arXiv 2603.14482). A patch embedding for single pictures beside that for clips, a learned token added to all patches of a
//!   modality, and four levels of output with a norm each.
//! - LeWorldModel (arXiv 2603.19312): the ViT of Hugging Face, with a class token and learned positions.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::checkpoint::last_norm;
use crate::config::{LEVELS, ModelConfig, Positions, System};
use crate::device::{Precision, read_values};
use crate::nn::ops::{self, AttentionMask, Rows, Weight};
use crate::nn::rope::Rope;
use crate::nn::{Block, LayerNorm, Linear, Parameters, patch, positions};
use crate::probe::pool::{Pool, pool};
use crate::{Error, Result};

/// An encoder of any system.
pub struct Encoder {
    config: ModelConfig,
    precision: Precision,
    weight_bytes: usize,
    device: Device,
    patch_embed: Linear,
    /// V-JEPA 2.1: the patch embedding of single pictures, and what is added to the patches of clips and of pictures.
    of_pictures: Option<(Linear, [Tensor<1>; 2])>,
    places: Places,
    blocks: Vec<Block>,
    /// The norms of all levels but the last: V-JEPA 2.1.
    level_norms: Vec<LayerNorm>,
    norm: LayerNorm,
}

/// How tokens get their positions.
#[expect(clippy::large_enum_variant, reason = "a model has one of them")]
enum Places {
    /// A table for the native grid, added to the patches.
    Added {
        table: Vec<f32>,
        uploaded: RefCell<HashMap<[usize; 3], Tensor<3>>>,
    },
    /// A trained table, the class token's row first, added to patches and class token.
    Learned {
        /// `[d]`.
        class: Tensor<1>,
        /// `[1 + tokens, d]`.
        table: Tensor<2>,
    },
    /// Queries and keys are turned.
    Turned {
        rope: Rope,
        uploaded: RefCell<HashMap<[usize; 3], Tensor<2>>>,
    },
}

/// Normalised pictures or clips of one size, planar: `[batch, frames, channels, height, width]`.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// Row-major values.
    pub pixels: Vec<f32>,
    /// Pictures or clips in the batch.
    pub batch: usize,
    /// Frames of each: 1 for pictures.
    pub frames: usize,
    /// Height and width in pixels.
    pub size: [usize; 2],
}

impl Pictures {
    /// All of them, and all of them again: as many as `times`.
    pub fn repeated(&self, times: usize) -> Self {
        Self {
            pixels: self.pixels.repeat(times),
            batch: self.batch * times,
            ..*self
        }
    }
}

/// Token embeddings of a batch, on the host.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[batch, tokens, d]` row-major.
    pub data: Vec<f32>,
    /// `[batch, tokens, d]`.
    pub shape: [usize; 3],
}

impl Encoder {
    /// # Errors
    /// [`Error::Unsupported`] for what `config` describes that no encoder here has: learned positions, but for LeWorldModel's.
    pub fn check(config: &ModelConfig) -> Result<()> {
        match config.positions {
            Positions::Learned if config.system != System::LeWm => {
                Err(Error::Unsupported(format!(
                    "this version has no encoders of {} with learned positions",
                    config.system.name()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Builds the encoder from all of its parameters, under their original names.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] naming the first parameter that is not there.
    pub fn new(
        config: &ModelConfig,
        precision: Precision,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let weight_bytes = parameters.bytes();
        let heads = config.heads;
        let eps = config.layer_norm_eps;
        let places = match Rope::of(config, false) {
            Some(rope) => Places::Turned {
                rope,
                uploaded: RefCell::default(),
            },
            None if config.system == System::LeWm => {
                let table = parameters.vector("position_embeddings")?;
                Places::Learned {
                    class: parameters.vector("cls_token")?,
                    table: ops::reshaped(table, [1 + config.tokens(), config.hidden_size]),
                }
            }
            None => Places::Added {
                table: parameters
                    .table("pos_embed")
                    .unwrap_or_else(|| positions::fixed(config, config.hidden_size)),
                uploaded: RefCell::default(),
            },
        };
        let (mut of_pictures, mut level_norms) = (None, Vec::new());
        if config.system == System::VJepa21 {
            let tokens = [
                parameters.vector("video_mod_embed")?,
                parameters.vector("img_mod_embed")?,
            ];
            of_pictures = Some((parameters.linear("patch_embed_img.proj")?, tokens));
            for level in 0..LEVELS - 1 {
                level_norms.push(parameters.norm(&format!("norms_block.{level}"), eps)?);
            }
        }
        Ok(Self {
            patch_embed: parameters.linear("patch_embed.proj")?,
            of_pictures,
            places,
            blocks: (0..config.layers)
                .map(|i| Block::take(parameters, &format!("blocks.{i}"), heads, eps))
                .collect::<Result<_>>()?,
            level_norms,
            norm: parameters.norm(last_norm(config.system), eps)?,
            config: config.clone(),
            precision,
            weight_bytes,
            device: device.clone(),
        })
    }

    /// The sizes that the encoder was built with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How the weight matrices are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes that all parameters occupy.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Patches of an input, `[time, rows, columns]`.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a number of frames or a size that cannot be cut into patches.
    pub fn grid(&self, pictures: &Pictures) -> Result<[usize; 3]> {
        self.config.grid_of(pictures.frames, pictures.size)
    }

    /// The fixed position table of a grid of patches, `[time·height·width, d]`: the stored one, or its interpolation; None where
    /// positions are rotary or trained.
    pub fn positions(&self, grid: [usize; 3]) -> Result<Option<Vec<f32>>> {
        match &self.places {
            Places::Turned { .. } | Places::Learned { .. } => Ok(None),
            Places::Added { table, .. } => {
                positions::resampled(table, self.config.grid(), grid, self.config.hidden_size)
                    .map(Some)
            }
        }
    }

    /// The patch embedding alone, before positions: `[batch, tokens, d]`.
    pub fn embed_patches(&self, pictures: &Pictures) -> Result<Tensor<3>> {
        let (patches, embed, _) = self.patches(pictures, None)?;
        Ok(embed.forward(patches))
    }

    /// The last blocks' outputs, each after the final norm: `last` of them, the earliest first, `[batch, tokens, d]`, without a class
    /// token.
    ///
    /// `tokens` gives the indices to encode for each clip, all of one length; they get their positions before the others are
    /// dropped. `None` encodes every token.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a size that is no multiple of the patch, [`Error::BadMask`] for unusable indices.
    pub fn forward(
        &self,
        pictures: &Pictures,
        tokens: Option<&[Vec<usize>]>,
        last: usize,
    ) -> Result<Vec<Tensor<3>>> {
        let mut outputs = Vec::with_capacity(last);
        self.walk(pictures, tokens, |depth, x| {
            if depth + last > self.blocks.len() {
                outputs.push(self.norm.forward(self.of_patches(x.clone())));
            }
        })?;
        Ok(outputs)
    }

    /// The class token after the final norm, `[batch, d]`, of an encoder that has one.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); [`Error::Unsupported`] where there is none.
    pub fn class_token(&self, pictures: &Pictures) -> Result<Tensor<2>> {
        let Places::Learned { .. } = self.places else {
            return Err(Error::Unsupported(format!(
                "encoders of {} have no class token",
                self.config.system.name()
            )));
        };
        let mut last = None;
        self.walk(pictures, None, |depth, x| {
            if depth == self.blocks.len() {
                last = Some(self.rows(x.clone(), 0, 1));
            }
        })?;
        let last = last.ok_or_else(|| Error::Internal("the encoder has no last block".into()))?;
        let [batch, _, d] = last.dims();
        Ok(ops::reshaped(self.norm.forward(last), [batch, d]))
    }

    /// The tokens of patches alone.
    fn of_patches(&self, x: Tensor<3>) -> Tensor<3> {
        match self.places {
            Places::Learned { .. } => {
                let count = x.dims()[1];
                self.rows(x, 1, count)
            }
            Places::Added { .. } | Places::Turned { .. } => x,
        }
    }

    /// Tokens `first .. end` of every sequence.
    fn rows(&self, x: Tensor<3>, first: usize, end: usize) -> Tensor<3> {
        let [batch, count, _] = x.dims();
        let of_sequence = |b: usize| (b * count + first..b * count + end).collect();
        let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
        let rows = Rows::new(&index, batch * count, &self.device);
        ops::select(x, None, &rows, None)
    }

    /// The levels that a predictor of `levels` of them is given: the last one, or all, each after its own norm and one after the other
    /// in the channels, `[batch, tokens, levels·d]`. Of a clip as of [`forward`](Self::forward).
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn levels(
        &self,
        pictures: &Pictures,
        tokens: Option<&[Vec<usize>]>,
        levels: usize,
    ) -> Result<Tensor<3>> {
        let layers = self.config.level_layers();
        if levels == 1 || layers.len() == 1 {
            let mut outputs = self.forward(pictures, tokens, 1)?;
            return Ok(outputs.swap_remove(0));
        }
        let mut outputs = Vec::with_capacity(layers.len());
        self.walk(pictures, tokens, |depth, x| {
            if let Some(level) = layers.iter().position(|layer| layer + 1 == depth) {
                let norm = self.level_norms.get(level).unwrap_or(&self.norm);
                outputs.push(norm.forward(x.clone()));
            }
        })?;
        Ok(ops::beside(outputs, &self.device))
    }

    /// What enters the first block, and every block's output, all before the final norm: `layers + 1` tensors
    /// `[batch, tokens, d]`, a class token first where there is one.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn hidden_states(&self, pictures: &Pictures) -> Result<Vec<Tensor<3>>> {
        let mut states = Vec::with_capacity(self.blocks.len() + 1);
        self.walk(pictures, None, |_, x| states.push(x.clone()))?;
        Ok(states)
    }

    /// Shows `visit` the input of the first block as depth 0, and the output of block `i` (from 0) as depth `i + 1`.
    fn walk(
        &self,
        pictures: &Pictures,
        tokens: Option<&[Vec<usize>]>,
        mut visit: impl FnMut(usize, &Tensor<3>),
    ) -> Result<()> {
        let grid = self.grid(pictures)?;
        if let Some(tokens) = tokens {
            check_masks(tokens, pictures.batch, grid.iter().product())?;
        }
        let (patches, embed, modality) = self.patches(pictures, tokens)?;
        let rotary = self.rotary(grid, tokens);
        let mut x = match (self.added(grid, tokens)?, modality) {
            (Some(rows), _) => embed.forward_onto(patches, rows),
            (None, Some(token)) => {
                let all = Rows::new(&[vec![0; patches.dims()[1]]], 1, &self.device);
                embed.forward_onto(patches, ops::select(token.clone(), None, &all, None))
            }
            (None, None) => embed.forward(patches),
        };
        if let Places::Learned { class, table } = &self.places {
            x = self.with_class(x, class, table);
        }
        visit(0, &x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, rotary.as_ref(), AttentionMask::Full);
            visit(i + 1, &x);
        }
        Ok(())
    }

    /// [`forward`](Self::forward), read back to the host.
    ///
    /// # Errors
    /// Those of `forward`, and [`Error::Internal`] when the device fails.
    pub async fn encode(
        &self,
        pictures: &Pictures,
        tokens: Option<&[Vec<usize>]>,
        last: usize,
    ) -> Result<Vec<Tokens>> {
        let mut outputs = Vec::with_capacity(last);
        for x in self.forward(pictures, tokens, last)? {
            outputs.push(read(x).await?);
        }
        Ok(outputs)
    }

    /// The embeddings of a batch and their shape, with a leading batch axis: pooled, and scaled to unit length where `unit` says so.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode) and of [`Pool::check`].
    pub async fn embed(
        &self,
        pictures: &Pictures,
        how: Pool,
        unit: bool,
    ) -> Result<(Vec<f32>, Vec<usize>)> {
        how.check(&self.config)?;
        let tokens = match how {
            Pool::Levels => vec![read(self.levels(pictures, None, LEVELS)?).await?],
            _ => self.encode(pictures, None, how.layers()).await?,
        };
        let shape = tokens[0].shape;
        let tokens = tokens.into_iter().map(|layer| layer.data).collect();
        Ok(pool(tokens, shape, how, unit))
    }

    /// Patches, the layer that embeds them, and what is added to all of them.
    fn patches(
        &self,
        pictures: &Pictures,
        tokens: Option<&[Vec<usize>]>,
    ) -> Result<(Tensor<3>, &Linear, Option<&Tensor<1>>)> {
        let ModelConfig {
            channels,
            patch_size,
            tubelet,
            ..
        } = self.config;
        let &Pictures {
            batch,
            frames,
            size,
            ref pixels,
        } = pictures;
        let shape = patch::Shape {
            batch,
            frames,
            channels,
            size,
        };
        if pixels.len() != shape.values() || pixels.is_empty() {
            let [height, width] = size;
            return Err(Error::BadInput(format!(
                "{} values are not {batch} inputs of {frames} frames of {channels}×{height}×{width}",
                pixels.len(),
            )));
        }
        let (embed, token, tubelet) = match &self.of_pictures {
            Some((embed, [_, token])) if frames == 1 => (embed, Some(token), 1),
            Some((_, [token, _])) => (&self.patch_embed, Some(token), tubelet),
            None => (&self.patch_embed, None, tubelet),
        };
        let data = patch::patches(pixels, shape, [tubelet, patch_size], tokens);
        let row = channels * tubelet * patch_size * patch_size;
        let count = data.len() / row / batch;
        let data = TensorData::new(data, [batch, count, row]);
        Ok((ops::uploaded(data, &self.device), embed, token))
    }

    /// Patches after the class token, which gets the first row of its table of positions.
    fn with_class(&self, x: Tensor<3>, class: &Tensor<1>, table: &Tensor<2>) -> Tensor<3> {
        let [batch, count, d] = x.dims();
        let first = Rows::new(&[vec![0]], 1 + self.config.tokens(), &self.device);
        let first = ops::select(table.clone(), None, &first, None);
        let class = ops::sum(class.clone(), ops::reshaped(first, [d]));
        let of_sequence = |b: usize| {
            let patches = b * count..(b + 1) * count;
            std::iter::once(batch * count).chain(patches).collect()
        };
        let index: Vec<Vec<usize>> = (0..batch).map(of_sequence).collect();
        let rows = Rows::new(&index, batch * count + 1, &self.device);
        ops::select(x, Some(class), &rows, None)
    }

    /// The rows of a trained table to add to patches, `[1 or batch, tokens, d]`. Interpolation is a product, so that it has a gradient.
    fn learned(
        &self,
        table: &Tensor<2>,
        grid: [usize; 3],
        tokens: Option<&[Vec<usize>]>,
    ) -> Result<Tensor<3>> {
        let native = self.config.tokens();
        let picked = |table: Tensor<2>, first: usize, tokens: &[Vec<usize>]| {
            let index: Vec<Vec<usize>> = tokens
                .iter()
                .map(|mask| mask.iter().map(|token| first + token).collect())
                .collect();
            let rows = Rows::new(&index, table.dims()[0], &self.device);
            ops::select(table, None, &rows, None)
        };
        let every = |count: usize| vec![(0..count).collect::<Vec<_>>()];
        if grid == self.config.grid() {
            return Ok(match tokens {
                Some(tokens) => picked(table.clone(), 1, tokens),
                None => picked(table.clone(), 1, &every(native)),
            });
        }
        let d = self.config.hidden_size;
        let of_patches = picked(table.clone(), 1, &every(native));
        let of_patches = Weight::Full(ops::reshaped(of_patches, [native, d]));
        let mut unit = vec![0.0; native * native];
        unit.iter_mut().step_by(native + 1).for_each(|v| *v = 1.0);
        let weights = positions::interpolated(&unit, self.config.grid(), grid, native)?;
        let count = weights.len() / native;
        let weights = ops::uploaded(TensorData::new(weights, [1, count, native]), &self.device);
        let none = ops::uploaded(TensorData::new(vec![0f32; d], [d]), &self.device);
        let all: Tensor<3> = ops::linear(weights, &of_patches, &none, None, false);
        Ok(match tokens {
            Some(tokens) => picked(ops::reshaped(all, [count, d]), 0, tokens),
            None => all,
        })
    }

    /// The position rows to add to patches.
    fn added(&self, grid: [usize; 3], tokens: Option<&[Vec<usize>]>) -> Result<Option<Tensor<3>>> {
        if let Places::Learned { table, .. } = &self.places {
            return self.learned(table, grid, tokens).map(Some);
        }
        let Places::Added { uploaded, .. } = &self.places else {
            return Ok(None);
        };
        if let (None, Some(table)) = (tokens, uploaded.borrow().get(&grid)) {
            return Ok(Some(table.clone()));
        }
        let Some(table) = self.positions(grid)? else {
            return Ok(None);
        };
        let d = self.config.hidden_size;
        let upload = |rows: Vec<f32>, batch: usize| {
            let count = rows.len() / d / batch;
            ops::uploaded(TensorData::new(rows, [batch, count, d]), &self.device)
        };
        Ok(Some(match tokens {
            Some(tokens) => upload(positions::gathered(&table, d, tokens), tokens.len()),
            None => {
                let table = upload(table, 1);
                uploaded.borrow_mut().insert(grid, table.clone());
                table
            }
        }))
    }

    /// How queries and keys are turned.
    fn rotary(&self, grid: [usize; 3], tokens: Option<&[Vec<usize>]>) -> Option<Tensor<2>> {
        let Places::Turned { rope, uploaded } = &self.places else {
            return None;
        };
        let head_dim = self.config.head_dim();
        if let Some(tokens) = tokens {
            let tokens = tokens.iter().flatten().copied();
            return Some(upload_turns(rope, grid, head_dim, tokens, &self.device));
        }
        if let Some(table) = uploaded.borrow().get(&grid) {
            return Some(table.clone());
        }
        let all = 0..grid.iter().product();
        let table = upload_turns(rope, grid, head_dim, all, &self.device);
        uploaded.borrow_mut().insert(grid, table.clone());
        Some(table)
    }
}

/// [`Rope::table`] on the device.
pub(super) fn upload_turns(
    rope: &Rope,
    grid: [usize; 3],
    head_dim: usize,
    tokens: impl Iterator<Item = usize>,
    device: &Device,
) -> Tensor<2> {
    let table = rope.table(grid, head_dim, tokens);
    let rows = table.len() / (2 * head_dim);
    ops::uploaded(TensorData::new(table, [rows, 2 * head_dim]), device)
}

/// Reads a tensor back to the host.
///
/// # Errors
/// [`Error::Internal`] when the device fails.
pub async fn read(x: Tensor<3>) -> Result<Tokens> {
    let shape = x.dims();
    Ok(Tokens {
        data: read_values(x).await?,
        shape,
    })
}

/// Checks one mask for each picture of a batch.
pub(super) fn check_masks(tokens: &[Vec<usize>], batch: usize, count: usize) -> Result<()> {
    let bad = |why: String| Err(Error::BadMask(why));
    if tokens.len() != batch {
        return bad(format!(
            "{} masks were given for {batch} pictures; give one for each",
            tokens.len()
        ));
    }
    for (b, mask) in tokens.iter().enumerate() {
        if mask.is_empty() {
            return bad(format!("the mask of picture {b} is empty"));
        }
        if mask.len() != tokens[0].len() {
            return bad(format!(
                "the mask of picture {b} has {} tokens and that of picture 0 has {}; all must have the same length",
                mask.len(),
                tokens[0].len()
            ));
        }
        if let Some(index) = mask.iter().find(|&&t| t >= count) {
            return bad(format!(
                "token {index} of picture {b} is outside the grid of {count} tokens"
            ));
        }
    }
    Ok(())
}
