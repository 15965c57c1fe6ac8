//! The text of the WebGPU kernels.
//!
//! The kernels keep their tiles in registers and use neither workgroup memory nor barriers: software adapters and phones
//! are several times slower with them. No optional feature of the device is needed; subgroups are used by [`SharedRows`]
//! where they are of a suitable width. Sizes that belong to the model are constants of the shader; the number of rows is read from the length of the bound buffer, so
//! that another batch size does not compile another pipeline.

use std::fmt::Write;

use super::{AttentionMask, gelu};

/// Vec4 columns of the output that one invocation of `linear` holds in registers.
pub const LINEAR_QUADS: u32 = 2;
/// Workgroup of products, columns first.
pub const LINEAR_GROUP: (u32, u32) = (8, 8);
/// Workgroup size of the kernels whose invocations are independent rows.
pub const ROW_GROUP: u32 = 64;
/// Workgroup of [`Rotate`]: pairs of channels, and tokens. Tokens alone may number 65,535 in each of many clips.
pub const ROTATE_GROUP: (u32, u32) = (32, 8);
/// Side of the workgroups of [`Columns`].
pub const TILE_GROUP: u32 = 8;
/// Workgroup size of `self_attention`. Small, as an invocation has several queries: 196 tokens are 49 invocations a head.
pub const ATTENTION_GROUP: u32 = 16;
/// Keys whose scores are computed together, so that the running softmax is rescaled once for all of them.
pub const ATTENTION_KEYS: u32 = 4;

/// How a weight lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kept {
    Full,
    Half,
    Quantized,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Linear {
    pub d_in: u32,
    pub d_out: u32,
    pub weight: Kept,
    pub residual: bool,
    pub gelu: bool,
    /// Rows of the output that one invocation holds in registers.
    pub tile_rows: u32,
    /// See [`SharedRows`].
    pub lanes: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Norm {
    pub width: u32,
    pub eps: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SelfAttention {
    pub heads: u32,
    pub head_dim: u32,
    pub mask: AttentionMask,
    /// Whether to write the logarithm of each query's sum of exponentials, too.
    pub sums: bool,
    /// Queries of one invocation.
    pub queries: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rotate {
    pub heads: u32,
    pub head_dim: u32,
    pub back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Columns {
    /// Length of a column.
    pub length: u32,
    /// Length of a row.
    pub width: u32,
    /// Of one value: 32, 16 or 8.
    pub bits: u32,
}

/// The type of the elements of a buffer of f32 rows of `width`.
fn element(width: u32) -> &'static str {
    if width.is_multiple_of(4) {
        "vec4<f32>"
    } else {
        "f32"
    }
}

/// Declares a storage buffer of f32 rows of `width`, and the function `{name}_at(row, i)` that reads elements
/// `4·i .. 4·i+4` of a row. Where `width` is no multiple of four the missing elements read as zero.
pub fn rows_of_f32(source: &mut String, binding: u32, name: &str, width: u32) {
    let _ = writeln!(
        source,
        "@group(0) @binding({binding}) var<storage, read> {name}: array<{}>;",
        element(width)
    );
    reading(source, name, width);
}

fn reading(source: &mut String, name: &str, width: u32) {
    if width.is_multiple_of(4) {
        let _ = writeln!(
            source,
            "fn {name}_at(row: u32, i: u32) -> vec4<f32> {{ return {name}[row * {quads}u + i]; }}",
            quads = width / 4
        );
    } else {
        let _ = write!(
            source,
            "fn {name}_at(row: u32, i: u32) -> vec4<f32> {{
    let j = 4u * i;
    let at = row * {width}u + j;
    let inside = vec4<u32>(j, j + 1u, j + 2u, j + 3u) < vec4<u32>({width}u);
    return select(vec4<f32>(), vec4<f32>({name}[at], {name}[at + 1u], {name}[at + 2u], {name}[at + 3u]), inside);
}}
"
        );
    }
}

/// Like [`rows_of_f32`] for a buffer of f16 or int8 values in 32-bit words; the values are widened to f32.
fn rows_of_packed(source: &mut String, binding: u32, name: &str, width: u32, kept: Kept) {
    let _ = writeln!(
        source,
        "@group(0) @binding({binding}) var<storage, read> {name}: array<u32>;"
    );
    let (per_word, one) = match kept {
        Kept::Half => (2, "unpack2x16float(word)[lane]"),
        _ => (4, "f32(extractBits(i32(word), 8u * lane, 8u))"),
    };
    if width.is_multiple_of(4) {
        let _ = match kept {
            Kept::Half => writeln!(
                source,
                "fn {name}_at(row: u32, i: u32) -> vec4<f32> {{
    let at = row * {}u + 2u * i;
    return vec4<f32>(unpack2x16float({name}[at]), unpack2x16float({name}[at + 1u]));
}}",
                width / 2
            ),
            _ => writeln!(
                source,
                "fn {name}_at(row: u32, i: u32) -> vec4<f32> {{
    let word = vec4<i32>(bitcast<i32>({name}[row * {}u + i]));
    return vec4<f32>((word << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}}",
                width / 4
            ),
        };
    } else {
        let _ = writeln!(
            source,
            "fn {name}_one(row: u32, j: u32) -> f32 {{
    let at = row * {width}u + j;
    let word = {name}[at / {per_word}u];
    let lane = at % {per_word}u;
    return select(0.0, {one}, j < {width}u);
}}
fn {name}_at(row: u32, i: u32) -> vec4<f32> {{
    let j = 4u * i;
    return vec4<f32>({name}_one(row, j), {name}_one(row, j + 1u), {name}_one(row, j + 2u), {name}_one(row, j + 3u));
}}"
        );
    }
}

/// Declares the buffers of a weight `[d_in, d_out]` from `binding` on: `w_at`, and of int8 `scale_at`. Gives the next binding.
pub fn weight_rows(source: &mut String, binding: u32, d_out: u32, kept: Kept) -> u32 {
    match kept {
        Kept::Full => rows_of_f32(source, binding, "w", d_out),
        kept => rows_of_packed(source, binding, "w", d_out, kept),
    }
    if kept != Kept::Quantized {
        return binding + 1;
    }
    rows_of_f32(source, binding + 1, "scale", d_out);
    binding + 2
}

/// Declares an output buffer of f32 rows of `width`, its number of rows `{name}_rows()`, and `put_{name}(row, i, value)`.
pub fn output_rows(source: &mut String, binding: u32, name: &str, width: u32) {
    let _ = writeln!(
        source,
        "@group(0) @binding({binding}) var<storage, read_write> {name}: array<{}>;",
        element(width)
    );
    if width.is_multiple_of(4) {
        let _ = write!(
            source,
            "fn {name}_rows() -> u32 {{ return arrayLength(&{name}) / {quads}u; }}
fn put_{name}(row: u32, i: u32, value: vec4<f32>) {{ {name}[row * {quads}u + i] = value; }}
",
            quads = width / 4
        );
    } else {
        let _ = write!(
            source,
            "fn {name}_rows() -> u32 {{ return arrayLength(&{name}) / {width}u; }}
fn put_{name}(row: u32, i: u32, value: vec4<f32>) {{
    for (var lane = 0u; lane < 4u && 4u * i + lane < {width}u; lane++) {{ {name}[row * {width}u + 4u * i + lane] = value[lane]; }}
}}
"
        );
    }
}

/// Like [`output_rows`], of what is there before: with `{name}_at(row, i)`, as [`rows_of_f32`] has it.
pub fn rows_in_place(source: &mut String, binding: u32, name: &str, width: u32) {
    output_rows(source, binding, name, width);
    reading(source, name, width);
}

const SUBGROUPS: &str = "enable subgroups;\n";

/// The rows of an input that a product multiplies in step `k` of its sum, `{name}_at(row, k)` for each row of a tile.
///
/// The invocations of a line of a workgroup have the same rows. Where subgroups, of `lanes` invocations each, are parts of
/// such a line, every invocation loads one row of so many, and has the others from its subgroup; where `lanes` is 1 it loads them all.
#[derive(Clone, Copy)]
pub struct SharedRows {
    pub name: &'static str,
    pub tile_rows: u32,
    pub lanes: u32,
}

impl SharedRows {
    /// The width of all subgroups of a device, where a line of a workgroup is made of whole ones, else 1.
    pub fn lanes(least: u32, most: u32) -> u32 {
        if least == most && most > 0 && LINEAR_GROUP.0.is_multiple_of(most) {
            most
        } else {
            1
        }
    }

    /// The first line of a kernel's text.
    pub fn enabled(&self) -> &'static str {
        if self.lanes > 1 { SUBGROUPS } else { "" }
    }

    /// The beginning of a kernel whose invocations have `tile_columns` of the output's `columns` each: their first `row` and `column`,
    /// and the `last` row of all.
    pub fn main(&self, source: &mut String, tile_columns: u32, columns: u32) {
        let Self {
            tile_rows, lanes, ..
        } = *self;
        let (gx, gy) = LINEAR_GROUP;
        let lane = if lanes > 1 {
            ", @builtin(subgroup_invocation_id) lane: u32"
        } else {
            ""
        };
        // Of one dimension, as only there a subgroup is a part of a line.
        let _ = write!(
            source,
            "@compute @workgroup_size({size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) place: u32{lane}) {{
    let column = (group.x * {gx}u + place % {gx}u) * {tile_columns}u;
    let row = (group.y * {gy}u + place / {gx}u) * {tile_rows}u;
    let last = y_rows() - 1u;
",
            size = gx * gy
        );
        if lanes > 1 {
            for i in 0..tile_rows.div_ceil(lanes) {
                let _ = writeln!(
                    source,
                    "    let m{i} = min(row + min({}u + lane, {}u), last);",
                    i * lanes,
                    tile_rows - 1
                );
            }
        } else {
            source.push_str(&self.outside(columns));
            for r in 0..tile_rows {
                let _ = writeln!(source, "    let m{r} = min(row + {r}u, last);");
            }
        }
    }

    fn outside(&self, columns: u32) -> String {
        format!("    if (row > last || column >= {columns}u) {{ return; }}\n")
    }

    /// What an invocation does at the beginning of a step.
    pub fn load(&self, source: &mut String) {
        if self.lanes > 1 {
            for i in 0..self.tile_rows.div_ceil(self.lanes) {
                let _ = writeln!(source, "        let own{i} = {}_at(m{i}, k);", self.name);
            }
        }
    }

    /// Row `r` of the tile.
    pub fn get(&self, r: u32) -> String {
        let Self { name, lanes, .. } = self;
        if *lanes > 1 {
            format!("subgroupBroadcast(own{}, {}u)", r / lanes, r % lanes)
        } else {
            format!("{name}_at(m{r}, k)")
        }
    }

    /// After all steps: invocations that are past the output have taken part in them where others needed their rows.
    pub fn end(&self, source: &mut String, columns: u32) {
        if self.lanes > 1 {
            source.push_str(&self.outside(columns));
        }
    }
}

impl Linear {
    /// Eight rows an invocation where that leaves enough invocations, else four: each weight that is loaded serves all of
    /// them, which measured 1.3 to 1.5 times faster than four on a software adapter.
    pub fn tile_rows(rows: u32, d_out: u32) -> u32 {
        if rows.div_ceil(8) * d_out.div_ceil(4 * LINEAR_QUADS) >= 512 {
            8
        } else {
            4
        }
    }

    pub fn wgsl(&self) -> String {
        let Self {
            d_in,
            d_out,
            tile_rows,
            lanes,
            ..
        } = *self;
        let tile_quads = LINEAR_QUADS;
        let rows = SharedRows {
            name: "x",
            tile_rows,
            lanes,
        };
        let mut s = rows.enabled().to_owned();
        rows_of_f32(&mut s, 0, "x", d_in);
        let mut binding = weight_rows(&mut s, 1, d_out, self.weight);
        rows_of_f32(&mut s, binding, "bias", d_out);
        if self.residual {
            binding += 1;
            rows_of_f32(&mut s, binding, "residual", d_out);
        }
        output_rows(&mut s, binding + 1, "y", d_out);
        if self.gelu {
            s.push_str(&gelu::wgsl());
        }
        let quads = d_out.div_ceil(4);
        rows.main(&mut s, tile_quads, quads);
        for c in 0..tile_quads {
            let _ = writeln!(s, "    let n{c} = min(column + {c}u, {}u);", quads - 1);
        }
        for r in 0..tile_rows {
            for c in 0..tile_quads {
                let _ = writeln!(s, "    var y{r}{c} = vec4<f32>();");
            }
        }
        let _ = writeln!(s, "    for (var k = 0u; k < {}u; k++) {{", d_in.div_ceil(4));
        rows.load(&mut s);
        for r in 0..tile_rows {
            let _ = writeln!(s, "        let x{r} = {};", rows.get(r));
        }
        for lane in 0..4 {
            for c in 0..tile_quads {
                let _ = writeln!(
                    s,
                    "        let w{lane}{c} = w_at({}, n{c});",
                    inner_row(d_in, lane)
                );
            }
            for r in 0..tile_rows {
                for c in 0..tile_quads {
                    let _ = writeln!(
                        s,
                        "        y{r}{c} = fma(vec4<f32>(x{r}[{lane}]), w{lane}{c}, y{r}{c});"
                    );
                }
            }
        }
        s.push_str("    }\n");
        rows.end(&mut s, quads);
        let scaled = if self.weight == Kept::Quantized {
            "value *= scale_at(0u, c); "
        } else {
            ""
        };
        let activated = if self.gelu {
            "value = gelu(value); "
        } else {
            ""
        };
        let added = if self.residual {
            "value += residual_at(r % residual_rows(), c); "
        } else {
            ""
        };
        each_of_tile(
            &mut s,
            tile_rows,
            tile_quads,
            |r, c| format!("y{r}{c}"),
            ["row", "y_rows()"],
            ["column", &format!("{quads}u")],
            &format!("{scaled}value += bias_at(0u, c); {activated}{added}put_y(r, c, value);"),
        );
        s.push_str("}\n");
        if self.residual {
            let unit = if d_out.is_multiple_of(4) {
                d_out / 4
            } else {
                d_out
            };
            let _ = writeln!(
                s,
                "fn residual_rows() -> u32 {{ return arrayLength(&residual) / {unit}u; }}"
            );
        }
        s
    }
}

/// A loop over a tile of `rows` × `quads` vec4s in registers, `name`d by row and column, as far as the output goes: `body` has the
/// `value` at row `r` and column `c`. Of rows and of columns the tile's first and the number of the output's are given.
///
/// No compiler can tell how often the loops run, so that none makes statements of them: lavapipe takes up to 30 ms to compile
/// each load and store.
pub fn each_of_tile(
    source: &mut String,
    rows: u32,
    quads: u32,
    name: impl Fn(u32, u32) -> String,
    [row, all_rows]: [&str; 2],
    [column, all_quads]: [&str; 2],
    body: &str,
) {
    let name = &name;
    let tile: Vec<_> = (0..rows)
        .flat_map(|r| (0..quads).map(move |c| name(r, c)))
        .collect();
    let _ = write!(
        source,
        "    var tile = array({tile});
    let first_row = {row};
    let first_column = {column};
    let end = min(first_row + {rows}u, {all_rows});
    let side = min(first_column + {quads}u, {all_quads});
    for (var r = first_row; r < end; r++) {{
        for (var c = first_column; c < side; c++) {{
            var value = tile[(r - first_row) * {quads}u + c - first_column];
            {body}
        }}
    }}
",
        tile = tile.join(", ")
    );
}

/// Row of the weight for lane `lane` of the inner loop; past the end it repeats the last row, against which `x` is zero.
fn inner_row(d_in: u32, lane: u32) -> String {
    if d_in.is_multiple_of(4) {
        format!("4u * k + {lane}u")
    } else {
        format!("min(4u * k + {lane}u, {}u)", d_in - 1)
    }
}

impl Norm {
    pub fn wgsl(&self) -> String {
        let width = self.width;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", width);
        rows_of_f32(&mut s, 1, "gain", width);
        rows_of_f32(&mut s, 2, "shift", width);
        output_rows(&mut s, 3, "y", width);
        let quads = width.div_ceil(4);
        // The padding of a width that is no multiple of four reads as zero: `mean · padding` is what it would add to
        // the sum of squared deviations.
        let padding = f64::from(4 * quads - width);
        let _ = write!(
            s,
            "@compute @workgroup_size({ROW_GROUP})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let row = (group.y * groups.x + group.x) * {ROW_GROUP}u + lane;
    if (row >= y_rows()) {{ return; }}
    var total = vec4<f32>();
    for (var i = 0u; i < {quads}u; i++) {{ total += x_at(row, i); }}
    let mean = dot(total, vec4<f32>(1.0)) / {width}.0;
    var squares = vec4<f32>();
    for (var i = 0u; i < {quads}u; i++) {{
        let d = x_at(row, i) - mean;
        squares = fma(d, d, squares);
    }}
    let variance = (dot(squares, vec4<f32>(1.0)) - mean * mean * {padding:?}) / {width}.0;
    let scale = 1.0 / sqrt(variance + {eps:?});
    for (var i = 0u; i < {quads}u; i++) {{
        put_y(row, i, (x_at(row, i) - mean) * scale * gain_at(0u, i) + shift_at(0u, i));
    }}
}}
",
            eps = f32::from_bits(self.eps)
        );
        s
    }
}

/// Declares a buffer of tokens that hold `parts` parts (query, key and value; or one) of all heads, and
/// `{name}_at(token, part, head, i)` or, of an output, `put_{name}(token, part, head, i, value)`, of elements `4·i .. 4·i+4`
/// of a head. Where `head_dim` is no multiple of four the missing elements read as zero.
pub fn heads_of(
    source: &mut String,
    binding: u32,
    name: &str,
    parts: u32,
    [heads, head_dim]: [u32; 2],
    output: bool,
) {
    let one = heads * head_dim;
    let all = parts * one;
    let access = if output { "read_write" } else { "read" };
    let _ = if head_dim.is_multiple_of(4) {
        let at = format!(
            "{name}[token * {}u + part * {}u + head * {}u + i]",
            all / 4,
            one / 4,
            head_dim / 4
        );
        let _ = writeln!(
            source,
            "@group(0) @binding({binding}) var<storage, {access}> {name}: array<vec4<f32>>;"
        );
        if output {
            writeln!(
                source,
                "fn put_{name}(token: u32, part: u32, head: u32, i: u32, value: vec4<f32>) {{ {at} = value; }}"
            )
        } else {
            writeln!(
                source,
                "fn {name}_at(token: u32, part: u32, head: u32, i: u32) -> vec4<f32> {{ return {at}; }}"
            )
        }
    } else {
        let _ = writeln!(
            source,
            "@group(0) @binding({binding}) var<storage, {access}> {name}: array<f32>;"
        );
        let at = format!("token * {all}u + part * {one}u + head * {head_dim}u");
        if output {
            writeln!(
                source,
                "fn put_{name}(token: u32, part: u32, head: u32, i: u32, value: vec4<f32>) {{
    for (var lane = 0u; lane < 4u && 4u * i + lane < {head_dim}u; lane++) {{ {name}[{at} + 4u * i + lane] = value[lane]; }}
}}"
            )
        } else {
            writeln!(
                source,
                "fn {name}_at(token: u32, part: u32, head: u32, i: u32) -> vec4<f32> {{
    let j = 4u * i;
    let at = {at} + j;
    let inside = vec4<u32>(j, j + 1u, j + 2u, j + 3u) < vec4<u32>({head_dim}u);
    return select(vec4<f32>(), vec4<f32>({name}[at], {name}[at + 1u], {name}[at + 2u], {name}[at + 3u]), inside);
}}"
            )
        }
    };
}

/// How many tokens `token` of a sequence of `tokens` attends to, which are its first.
pub fn visible(mask: AttentionMask, token: &str) -> String {
    match mask {
        AttentionMask::Full => "tokens".to_owned(),
        AttentionMask::Causal { block } => {
            format!("min(({token} / {block}u + 1u) * {block}u, tokens)")
        }
    }
}

/// The number of tokens in a buffer that was declared by [`heads_of`].
pub fn tokens_in(name: &str, parts: u32, [heads, head_dim]: [u32; 2]) -> String {
    let all = parts * heads * head_dim;
    let unit = if head_dim.is_multiple_of(4) {
        all / 4
    } else {
        all
    };
    format!("(arrayLength(&{name}) / {unit}u)")
}

/// A loop over the quads of a head, after [`depth`]. As many statements would take lavapipe ten times as long to compile, and run no faster.
pub const CHANNELS: &str = "for (var i = 0u; i < depth; i++) {";

/// The bound of [`CHANNELS`]. It has a name of its own, since a literal lets Dawn prove that indices are within their arrays, and Mesa then
/// makes statements of the loop.
pub fn depth(quads: u32) -> String {
    format!("    let depth = {quads}u;\n")
}

impl SelfAttention {
    pub fn wgsl(&self) -> String {
        let Self {
            heads,
            head_dim,
            mask,
            sums,
            queries,
        } = *self;
        let quads = head_dim.div_ceil(4);
        let keys = ATTENTION_KEYS;
        let scale = f64::from(head_dim).powf(-0.5) as f32;
        let mut s = String::new();
        heads_of(&mut s, 0, "qkv", 3, [heads, head_dim], false);
        heads_of(&mut s, 1, "y", 1, [heads, head_dim], true);
        if sums {
            s.push_str("@group(0) @binding(2) var<storage, read_write> sums: array<f32>;\n");
        }
        let _ = write!(
            s,
            "@compute @workgroup_size({ATTENTION_GROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {{
    let tokens = {count} / groups.z;
    let token = id.x * {queries}u;
    if (token >= tokens) {{ return; }}
    let head = group.y;
    let first = group.z * tokens;
    let last = tokens - 1u;
",
            count = tokens_in("qkv", 3, [heads, head_dim])
        );
        for r in 0..queries {
            let _ = writeln!(
                s,
                "    let token{r} = min(token + {r}u, last);
    let seen{r} = {};
    var top{r} = -3.0e38;
    var total{r} = 0.0;
    var q{r}: array<vec4<f32>, {quads}>;
    var y{r}: array<vec4<f32>, {quads}>;",
                visible(mask, &format!("token{r}"))
            );
        }
        s.push_str(&depth(quads));
        let _ = writeln!(s, "    {CHANNELS}");
        for r in 0..queries {
            let _ = writeln!(
                s,
                "        q{r}[i] = qkv_at(first + token{r}, 0u, head, i) * {scale:?};"
            );
        }
        s.push_str("    }\n");
        // Of the queries of an invocation the last sees the most. Keys are clamped to the sequence, not to what is seen,
        // so that all invocations of a group load the same ones.
        let _ = writeln!(
            s,
            "    for (var key = 0u; key < seen{}; key += {keys}u) {{",
            queries - 1
        );
        for k in 0..keys {
            let _ = writeln!(s, "        let at{k} = first + min(key + {k}u, last);");
            for r in 0..queries {
                let _ = writeln!(s, "        var s{r}_{k} = 0.0;");
            }
        }
        let _ = writeln!(s, "        {CHANNELS}");
        // SwiftShader takes half as long again where every use loads it.
        for r in 0..queries {
            let _ = writeln!(s, "            let own{r} = q{r}[i];");
        }
        for k in 0..keys {
            let _ = writeln!(s, "            let k{k} = qkv_at(at{k}, 1u, head, i);");
            for r in 0..queries {
                for lane in ["x", "y", "z", "w"] {
                    let _ = writeln!(
                        s,
                        "            s{r}_{k} = fma(own{r}.{lane}, k{k}.{lane}, s{r}_{k});"
                    );
                }
            }
        }
        s.push_str("        }\n");
        for r in 0..queries {
            for k in 0..keys {
                let _ = writeln!(
                    s,
                    "        s{r}_{k} = select(-3.0e38, s{r}_{k}, key + {k}u < seen{r});"
                );
            }
            let highest = (0..keys).fold(format!("top{r}"), |m, k| format!("max({m}, s{r}_{k})"));
            let _ = writeln!(
                s,
                "        let highest{r} = {highest};
        let shrink{r} = exp(top{r} - highest{r});
        top{r} = highest{r};
        total{r} *= shrink{r};"
            );
            for k in 0..keys {
                let _ = writeln!(
                    s,
                    "        let p{r}_{k} = exp(s{r}_{k} - highest{r});
        total{r} += p{r}_{k};"
                );
            }
        }
        let _ = writeln!(s, "        {CHANNELS}");
        for k in 0..keys {
            let _ = writeln!(s, "            let v{k} = qkv_at(at{k}, 2u, head, i);");
        }
        for r in 0..queries {
            let sum = (0..keys).fold(format!("y{r}[i] * shrink{r}"), |sum, k| {
                format!("fma(vec4<f32>(p{r}_{k}), v{k}, {sum})")
            });
            let _ = writeln!(s, "            y{r}[i] = {sum};");
        }
        s.push_str("        }\n    }\n");
        for r in 0..queries {
            let _ = writeln!(
                s,
                "    if (token + {r}u < tokens) {{
        {CHANNELS} put_y(first + token{r}, 0u, head, i, y{r}[i] / total{r}); }}"
            );
            if sums {
                let _ = writeln!(
                    s,
                    "        sums[(group.z * {heads}u + head) * tokens + token{r}] = top{r} + log(total{r});"
                );
            }
            s.push_str("    }\n");
        }
        s.push_str("}\n");
        s
    }
}

impl Rotate {
    /// An invocation turns one pair of channels; those of the values it copies.
    pub fn wgsl(&self) -> String {
        let pairs = self.head_dim / 2;
        let width = 3 * self.heads * pairs;
        let (gx, gy) = ROTATE_GROUP;
        // The gradient turns back: by the sines of the other channel, with the other sign.
        let sines = match self.back {
            false => "turn.yw",
            true => "-turn.wy",
        };
        format!(
            "@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2<f32>>;
@compute @workgroup_size({gx}, {gy})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let at = id.y * {width}u + id.x;
    if (id.x >= {width}u || at >= arrayLength(&y)) {{ return; }}
    let pair = x[at];
    let rows = arrayLength(&table) / {pairs}u;
    let turn = table[(id.y % rows) * {pairs}u + id.x % {pairs}u];
    let sines = {sines};
    let turned = vec2<f32>(pair.x * turn.x - pair.y * sines.x, pair.y * turn.z + pair.x * sines.y);
    y[at] = select(turned, pair, id.x >= {values}u);
}}
",
            values = 2 * self.heads * pairs
        )
    }
}

impl Columns {
    /// Writes the `place[1]` rows of `x` as columns of `y`, from column `place[0]` on. An invocation writes a 32-bit word of
    /// a row of `y`: it keeps those values of the word that lie outside the columns, and writes all that lie within, also
    /// where the word goes on into the next row.
    pub fn wgsl(&self) -> String {
        let Self {
            length,
            width,
            bits,
        } = *self;
        let per_word = 32 / bits;
        format!(
            "@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> place: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@compute @workgroup_size({TILE_GROUP}, {TILE_GROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let first = place[0];
    let count = place[1];
    let row = id.y * {width}u;
    let word = (row + first) / {per_word}u + id.x;
    let start = word * {per_word}u;
    if (id.y >= {length}u || start >= row + first + count) {{ return; }}
    // The row above ends in this word with a value that is its to write, and with it the word.
    if (start < row && first + count == {width}u) {{ return; }}
    var value = y[word];
    for (var lane = 0u; lane < {per_word}u; lane++) {{
        let line = (start + lane) / {width}u;
        let column = (start + lane) % {width}u - first;
        if (column < count && line < {length}u) {{
            let at = column * {length}u + line;
            let one = extractBits(x[at / {per_word}u], {bits}u * (at % {per_word}u), {bits}u);
            value = insertBits(value, one, {bits}u * lane, {bits}u);
        }}
    }}
    y[word] = value;
}}
"
        )
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn assert_valid(source: &str) {
        use naga::valid::{
            Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
        };
        // `unpack2x16float` is in every WebGPU; naga counts it separately for the sake of OpenGL.
        let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        // naga has subgroups, and refuses the line that enables them.
        let enabled = source.strip_prefix(SUBGROUPS);
        if enabled.is_some() {
            capabilities |= Capabilities::SUBGROUP;
        }
        let source = enabled.unwrap_or(source);
        let module = naga::front::wgsl::parse_str(source)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
        Validator::new(ValidationFlags::all(), capabilities)
            .subgroup_stages(ShaderStages::COMPUTE)
            .subgroup_operations(SubgroupOperationSet::all())
            .validate(&module)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
    }

    #[test]
    fn rows_are_shared_where_subgroups_are_parts_of_a_line() {
        for (least, most, lanes) in [
            (8, 8, 8),
            (4, 4, 4),
            (8, 32, 1),
            (32, 32, 1),
            (4, 128, 1),
            (0, 0, 1),
        ] {
            assert_eq!(SharedRows::lanes(least, most), lanes);
        }
    }

    #[test]
    fn every_kernel_is_valid_and_but_for_shared_rows_without_optional_features() {
        for (d_in, d_out) in [(192, 768), (588, 1280), (25, 30), (1, 1), (24, 65)] {
            for weight in [Kept::Full, Kept::Half, Kept::Quantized] {
                for (residual, gelu) in [(false, false), (true, false), (false, true)] {
                    for lanes in [1, 4, 8] {
                        let kernel = Linear {
                            d_in,
                            d_out,
                            weight,
                            residual,
                            gelu,
                            tile_rows: Linear::tile_rows(196, d_out),
                            lanes,
                        };
                        assert_valid(&kernel.wgsl());
                    }
                }
            }
        }
        for width in [4, 30, 1408] {
            assert_valid(
                &Norm {
                    width,
                    eps: 1e-6f32.to_bits(),
                }
                .wgsl(),
            );
        }
        for (heads, head_dim) in [(1, 1), (3, 64), (16, 88), (4, 6)] {
            for mask in [AttentionMask::Full, AttentionMask::Causal { block: 3 }] {
                for (sums, queries) in [(false, 1), (true, 1), (false, 4), (true, 4)] {
                    assert_valid(
                        &SelfAttention {
                            heads,
                            head_dim,
                            mask,
                            sums,
                            queries,
                        }
                        .wgsl(),
                    );
                }
            }
        }
        for back in [false, true] {
            let (heads, head_dim) = (3, 10);
            assert_valid(
                &Rotate {
                    heads,
                    head_dim,
                    back,
                }
                .wgsl(),
            );
        }
        for bits in [32, 16, 8] {
            assert_valid(
                &Columns {
                    length: 3,
                    width: 5,
                    bits,
                }
                .wgsl(),
            );
        }
    }
}
