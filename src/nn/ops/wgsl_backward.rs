//! The text of the kernels that training needs besides those of `wgsl.rs`, in the same manner: registers only, no optional
//! feature. No kernel adds to what another invocation adds to, so results are repeatable on one adapter.

use std::fmt::Write;

use super::update::SQUARE_LANES;
use super::wgsl::{
    ATTENTION_GROUP, CHANNELS, Kept, LINEAR_GROUP, ROW_GROUP, SharedRows, depth, each_of_tile,
    heads_of, output_rows, rows_in_place, rows_of_f32, tokens_in, visible, weight_rows,
};
use super::{Activation, AttentionMask, gelu};
use crate::objective::distance::Distance;

const BUILTINS: &str = "@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32";

/// The beginning of a kernel whose invocations are independent; `name` is the number of the invocation among all.
fn main_of_each(name: &str) -> String {
    format!(
        "@compute @workgroup_size({ROW_GROUP})
fn main({BUILTINS}) {{
    let {name} = (group.y * groups.x + group.x) * {ROW_GROUP}u + lane;"
    )
}

/// `y[row, quad]`, each by one invocation: `body` gives the value of `row` and `i`.
fn each_quad(s: &mut String, width: u32, before: &str, value: &str) {
    let quads = width.div_ceil(4);
    let main = main_of_each("number");
    let _ = write!(
        s,
        "{main}
    let row = number / {quads}u;
    let i = number % {quads}u;
    if (row >= y_rows()) {{ return; }}
{before}    put_y(row, i, {value});
}}
"
    );
}

/// The number of rows of a buffer that was declared by [`rows_of_f32`].
fn rows_in(name: &str, width: u32) -> String {
    let unit = if width.is_multiple_of(4) {
        width / 4
    } else {
        width
    };
    format!("(arrayLength(&{name}) / {unit}u)")
}

/// `dy · wᵀ`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinearInput {
    pub d_in: u32,
    pub d_out: u32,
    pub weight: Kept,
    /// Rows of the output that one invocation holds in registers.
    pub tile_rows: u32,
    /// See [`SharedRows`].
    pub lanes: u32,
}

/// Columns of the output that an invocation of [`LinearInput`] holds.
pub const INPUT_COLUMNS: u32 = 8;

impl LinearInput {
    pub fn wgsl(&self) -> String {
        let Self {
            d_in,
            d_out,
            tile_rows,
            lanes,
            ..
        } = *self;
        let rows = SharedRows {
            name: "dy",
            tile_rows,
            lanes,
        };
        let mut s = rows.enabled().to_owned();
        rows_of_f32(&mut s, 0, "dy", d_out);
        let quantized = self.weight == Kept::Quantized;
        let binding = weight_rows(&mut s, 1, d_out, self.weight);
        output_rows(&mut s, binding, "y", d_in);
        rows.main(&mut s, INPUT_COLUMNS, d_in);
        for c in 0..INPUT_COLUMNS {
            let _ = writeln!(s, "    let n{c} = min(column + {c}u, {}u);", d_in - 1);
        }
        for r in 0..tile_rows {
            for c in 0..INPUT_COLUMNS {
                let _ = writeln!(s, "    var y{r}_{c} = 0.0;");
            }
        }
        let _ = writeln!(
            s,
            "    for (var k = 0u; k < {}u; k++) {{",
            d_out.div_ceil(4)
        );
        rows.load(&mut s);
        for c in 0..INPUT_COLUMNS {
            let _ = writeln!(s, "        let w{c} = w_at(n{c}, k);");
        }
        for r in 0..tile_rows {
            let scale = if quantized { " * scale_at(0u, k)" } else { "" };
            let _ = writeln!(s, "        let g{r} = {}{scale};", rows.get(r));
            for c in 0..INPUT_COLUMNS {
                let _ = writeln!(s, "        y{r}_{c} += dot(g{r}, w{c});");
            }
        }
        s.push_str("    }\n");
        rows.end(&mut s, d_in);
        each_of_tile(
            &mut s,
            tile_rows,
            INPUT_COLUMNS / 4,
            |r, quad| {
                let [a, b, c, d] = [0, 1, 2, 3].map(|lane| format!("y{r}_{}", 4 * quad + lane));
                format!("vec4<f32>({a}, {b}, {c}, {d})")
            },
            ["row", "y_rows()"],
            ["column / 4u", &format!("{}u", d_in.div_ceil(4))],
            "put_y(r, c, value);",
        );
        s.push_str("}\n");
        s
    }
}

/// `xᵀ · dy` and the sum of the rows of `dy`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinearParameters {
    pub d_in: u32,
    pub d_out: u32,
}

/// Vec4s of `x` and of `dy` that an invocation of [`LinearParameters`] combines.
pub const PARAMETER_QUADS: u32 = 2;

impl LinearParameters {
    pub fn wgsl(&self) -> String {
        let Self { d_in, d_out } = *self;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", d_in);
        rows_of_f32(&mut s, 1, "dy", d_out);
        output_rows(&mut s, 2, "y", d_out);
        output_rows(&mut s, 3, "bias", d_out);
        let (in_quads, out_quads) = (d_in.div_ceil(4), d_out.div_ceil(4));
        let _ = write!(
            s,
            "@compute @workgroup_size({gx}, {gy})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let column = id.x * {PARAMETER_QUADS}u;
    let row = id.y * {PARAMETER_QUADS}u;
    if (row >= {in_quads}u || column >= {out_quads}u) {{ return; }}
    let rows = {rows};
",
            gx = LINEAR_GROUP.0,
            gy = LINEAR_GROUP.1,
            rows = rows_in("x", d_in)
        );
        for q in 0..PARAMETER_QUADS {
            let _ = writeln!(s, "    let m{q} = min(row + {q}u, {}u);", in_quads - 1);
            let _ = writeln!(s, "    let n{q} = min(column + {q}u, {}u);", out_quads - 1);
            let _ = writeln!(s, "    var b{q} = vec4<f32>();");
            for lane in 0..4 {
                for c in 0..PARAMETER_QUADS {
                    let _ = writeln!(s, "    var y{q}{lane}{c} = vec4<f32>();");
                }
            }
        }
        s.push_str("    for (var r = 0u; r < rows; r++) {\n");
        for q in 0..PARAMETER_QUADS {
            let _ = writeln!(
                s,
                "        let x{q} = x_at(r, m{q});\n        let g{q} = dy_at(r, n{q});"
            );
        }
        for c in 0..PARAMETER_QUADS {
            let _ = writeln!(s, "        b{c} += g{c};");
            for q in 0..PARAMETER_QUADS {
                for lane in 0..4 {
                    let _ = writeln!(
                        s,
                        "        y{q}{lane}{c} = fma(vec4<f32>(x{q}[{lane}]), g{c}, y{q}{lane}{c});"
                    );
                }
            }
        }
        s.push_str("    }\n");
        for c in 0..PARAMETER_QUADS {
            let _ = writeln!(
                s,
                "    if (row == 0u && column + {c}u < {out_quads}u) {{ put_bias(0u, column + {c}u, b{c}); }}"
            );
        }
        each_of_tile(
            &mut s,
            4 * PARAMETER_QUADS,
            PARAMETER_QUADS,
            |r, c| format!("y{}{}{c}", r / 4, r % 4),
            ["4u * row", &format!("{d_in}u")],
            ["column", &format!("{out_quads}u")],
            "put_y(r, c, value);",
        );
        s.push_str("}\n");
        s
    }
}

/// In terms of a number that is not positive, whose exponential does not overflow.
const LOGISTIC: &str = "fn logistic(x: vec4<f32>) -> vec4<f32> {
    let e = exp(-abs(x));
    return select(vec4<f32>(1.0), e, x < vec4<f32>()) / (1.0 + e);
}
";
const SILU_SLOPE: &str = "fn silu_slope(x: vec4<f32>) -> vec4<f32> {
    let share = logistic(x);
    return share * (1.0 + x * (1.0 - share));
}
";

/// An activation of the elements of a buffer, as rows of `width`; or, given the gradient of its output, its gradient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Activate {
    pub width: u32,
    pub activation: Activation,
    pub gradient: bool,
}

impl Activate {
    pub fn wgsl(&self) -> String {
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", self.width);
        if self.gradient {
            rows_of_f32(&mut s, 1, "dy", self.width);
        }
        output_rows(&mut s, 1 + u32::from(self.gradient), "y", self.width);
        let value = match (self.activation, self.gradient) {
            (Activation::Gelu, false) => {
                s.push_str(&gelu::wgsl());
                "gelu(x_at(row, i))"
            }
            (Activation::Gelu, true) => {
                s.push_str(&gelu::wgsl());
                s.push_str(&gelu::wgsl_slope());
                "dy_at(row, i) * gelu_slope(x_at(row, i))"
            }
            (Activation::Relu, false) => "max(x_at(row, i), vec4<f32>())",
            (Activation::Relu, true) => {
                "select(vec4<f32>(), dy_at(row, i), x_at(row, i) > vec4<f32>())"
            }
            (Activation::Silu, gradient) => {
                s.push_str(LOGISTIC);
                match gradient {
                    false => "x_at(row, i) * logistic(x_at(row, i))",
                    true => {
                        s.push_str(SILU_SLOPE);
                        "dy_at(row, i) * silu_slope(x_at(row, i))"
                    }
                }
            }
        };
        each_quad(&mut s, self.width, "", value);
        s
    }
}

/// The gradient of a LayerNorm with respect to its input, and each row's mean and reciprocal deviation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NormRows {
    pub width: u32,
    pub eps: u32,
}

impl NormRows {
    pub fn wgsl(&self) -> String {
        let width = self.width;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", width);
        rows_of_f32(&mut s, 1, "gain", width);
        rows_of_f32(&mut s, 2, "dy", width);
        output_rows(&mut s, 3, "y", width);
        s.push_str("@group(0) @binding(4) var<storage, read_write> stats: array<vec2<f32>>;\n");
        let quads = width.div_ceil(4);
        // As in the forward kernel, padding reads as zero; against `h`, which is zero there, it counts for nothing.
        let padding = f64::from(4 * quads - width);
        let main = main_of_each("row");
        let _ = write!(
            s,
            "{main}
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
    stats[row] = vec2<f32>(mean, scale);
    var sum_h = vec4<f32>();
    var sum_hn = vec4<f32>();
    for (var i = 0u; i < {quads}u; i++) {{
        let h = dy_at(row, i) * gain_at(0u, i);
        sum_h += h;
        sum_hn = fma(h, (x_at(row, i) - mean) * scale, sum_hn);
    }}
    let mean_h = dot(sum_h, vec4<f32>(1.0)) / {width}.0;
    let mean_hn = dot(sum_hn, vec4<f32>(1.0)) / {width}.0;
    for (var i = 0u; i < {quads}u; i++) {{
        let n = (x_at(row, i) - mean) * scale;
        put_y(row, i, scale * (dy_at(row, i) * gain_at(0u, i) - mean_h - n * mean_hn));
    }}
}}
",
            eps = f32::from_bits(self.eps)
        );
        s
    }
}

/// The gradients of a LayerNorm with respect to its gain and shift.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NormColumns {
    pub width: u32,
}

impl NormColumns {
    pub fn wgsl(&self) -> String {
        let width = self.width;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", width);
        rows_of_f32(&mut s, 1, "dy", width);
        s.push_str("@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;\n");
        output_rows(&mut s, 3, "gain", width);
        output_rows(&mut s, 4, "shift", width);
        let _ = write!(
            s,
            "@compute @workgroup_size({ROW_GROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    if (id.x >= {quads}u) {{ return; }}
    var gain_sum = vec4<f32>();
    var shift_sum = vec4<f32>();
    let rows = arrayLength(&stats);
    for (var row = 0u; row < rows; row++) {{
        let g = dy_at(row, id.x);
        shift_sum += g;
        gain_sum = fma(g, (x_at(row, id.x) - stats[row].x) * stats[row].y, gain_sum);
    }}
    put_gain(0u, id.x, gain_sum);
    put_shift(0u, id.x, shift_sum);
}}
",
            quads = width.div_ceil(4)
        );
        s
    }
}

/// The gradient of attention with respect to the queries, and each query's `δ`, the product of its output and that output's
/// gradient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionQueries {
    pub heads: u32,
    pub head_dim: u32,
    pub mask: AttentionMask,
    /// Queries of one invocation.
    pub queries: u32,
}

/// The gradient of attention with respect to the keys and values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionKeys {
    pub heads: u32,
    pub head_dim: u32,
    pub mask: AttentionMask,
    /// Keys of one invocation.
    pub keys: u32,
}

/// Tokens, beside an invocation's own, whose scores are computed together.
const OTHERS: u32 = 2;

/// Begins a kernel whose invocations have `count` tokens each: `token{r}` of the sequence, `own{r}` of all.
fn attention_main(s: &mut String, [heads, head_dim]: [u32; 2], count: u32) {
    let _ = write!(
        s,
        "@compute @workgroup_size({ATTENTION_GROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {{
    let tokens = {tokens} / groups.z;
    let token = id.x * {count}u;
    if (token >= tokens) {{ return; }}
    let head = group.y;
    let first = group.z * tokens;
    let last = tokens - 1u;
    let heads_row = (group.z * {heads}u + head) * tokens;
",
        tokens = tokens_in("qkv", 3, [heads, head_dim])
    );
    for r in 0..count {
        let _ = writeln!(
            s,
            "    let token{r} = min(token + {r}u, last);\n    let own{r} = first + token{r};"
        );
    }
}

/// `{sum} += dot(a, b)`, each of them loaded once.
fn add_dot(s: &mut String, sum: &str, a: &str, b: &str) {
    let _ = writeln!(s, "            {{ let a = {a}; let b = {b};");
    for lane in ["x", "y", "z", "w"] {
        let _ = writeln!(s, "            {sum} = fma(a.{lane}, b.{lane}, {sum});");
    }
    s.push_str("            }\n");
}

/// `let {name} = dot({a}, {b})` over the quads of a head.
fn dot_over(s: &mut String, name: &str, quads: u32, a: &str, b: &str) {
    let term = |i: u32, of: &str| of.replace('#', &i.to_string());
    let _ = writeln!(s, "        var {name}_4 = {} * {};", term(0, a), term(0, b));
    for i in 1..quads {
        let _ = writeln!(
            s,
            "        {name}_4 = fma({}, {}, {name}_4);",
            term(i, a),
            term(i, b)
        );
    }
    let _ = writeln!(s, "        let {name} = dot({name}_4, vec4<f32>(1.0));");
}

impl AttentionQueries {
    pub fn wgsl(&self) -> String {
        let Self {
            heads,
            head_dim,
            mask,
            queries,
        } = *self;
        let quads = head_dim.div_ceil(4);
        let scale = f64::from(head_dim).powf(-0.5) as f32;
        let shape = [heads, head_dim];
        let mut s = String::new();
        heads_of(&mut s, 0, "qkv", 3, shape, false);
        heads_of(&mut s, 1, "y", 1, shape, false);
        s.push_str("@group(0) @binding(2) var<storage, read> sums: array<f32>;\n");
        heads_of(&mut s, 3, "dy", 1, shape, false);
        heads_of(&mut s, 4, "d", 3, shape, true);
        s.push_str("@group(0) @binding(5) var<storage, read_write> delta: array<f32>;\n");
        attention_main(&mut s, shape, queries);
        s.push_str(&depth(quads));
        for r in 0..queries {
            let _ = writeln!(
                s,
                "    let seen{r} = {seen};
    let sum{r} = sums[heads_row + token{r}];
    var delta{r} = 0.0;
    var q{r}: array<vec4<f32>, {quads}>;
    var g{r}: array<vec4<f32>, {quads}>;
    var d{r}: array<vec4<f32>, {quads}>;
    {CHANNELS}
        q{r}[i] = qkv_at(own{r}, 0u, head, i) * {scale:?};
        g{r}[i] = dy_at(own{r}, 0u, head, i);
        delta{r} += dot(g{r}[i], y_at(own{r}, 0u, head, i));
    }}
    if (token + {r}u < tokens) {{ delta[heads_row + token{r}] = delta{r}; }}",
                seen = visible(mask, &format!("token{r}"))
            );
        }
        // Of the queries of an invocation the last sees the most.
        let _ = writeln!(
            s,
            "    for (var key = 0u; key < seen{}; key += {OTHERS}u) {{",
            queries - 1
        );
        for k in 0..OTHERS {
            let _ = writeln!(s, "        let at{k} = first + min(key + {k}u, last);");
            for r in 0..queries {
                let _ = writeln!(
                    s,
                    "        var s{r}_{k} = 0.0;\n        var dp{r}_{k} = 0.0;"
                );
            }
        }
        let _ = writeln!(s, "        {CHANNELS}");
        for k in 0..OTHERS {
            let _ = writeln!(
                s,
                "            let k{k} = qkv_at(at{k}, 1u, head, i);\n            let v{k} = qkv_at(at{k}, 2u, head, i);"
            );
            for r in 0..queries {
                add_dot(
                    &mut s,
                    &format!("s{r}_{k}"),
                    &format!("q{r}[i]"),
                    &format!("k{k}"),
                );
                add_dot(
                    &mut s,
                    &format!("dp{r}_{k}"),
                    &format!("g{r}[i]"),
                    &format!("v{k}"),
                );
            }
        }
        s.push_str("        }\n");
        for k in 0..OTHERS {
            for r in 0..queries {
                let _ = writeln!(
                    s,
                    "        let ds{r}_{k} = select(0.0, exp(s{r}_{k} - sum{r}) * (dp{r}_{k} - delta{r}), key + {k}u < seen{r});"
                );
            }
        }
        let _ = writeln!(s, "        {CHANNELS}");
        for k in 0..OTHERS {
            let _ = writeln!(s, "            let k{k} = qkv_at(at{k}, 1u, head, i);");
            for r in 0..queries {
                let _ = writeln!(
                    s,
                    "            d{r}[i] = fma(vec4<f32>(ds{r}_{k}), k{k}, d{r}[i]);"
                );
            }
        }
        s.push_str("        }\n    }\n");
        for r in 0..queries {
            let _ = writeln!(
                s,
                "    if (token + {r}u < tokens) {{
        {CHANNELS} put_d(own{r}, 0u, head, i, d{r}[i] * {scale:?}); }}
    }}"
            );
        }
        s.push_str("}\n");
        s
    }
}

/// Attention of one query: see `Ops::attend`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attend {
    pub heads: u32,
    pub head_dim: u32,
}

/// Its gradient for keys and values, and the slope of each score.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttendKeys {
    pub heads: u32,
    pub head_dim: u32,
}

/// Its gradient for the query, from those slopes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttendQuery {
    pub heads: u32,
    pub head_dim: u32,
}

impl Attend {
    /// An invocation for each head of each sequence goes through all tokens of it.
    pub fn wgsl(&self) -> String {
        let Self { heads, head_dim } = *self;
        let quads = head_dim.div_ceil(4);
        let scale = f64::from(head_dim).powf(-0.5) as f32;
        let shape = [heads, head_dim];
        let mut s = String::new();
        heads_of(&mut s, 0, "query", 1, shape, false);
        heads_of(&mut s, 1, "kv", 2, shape, false);
        heads_of(&mut s, 2, "y", 1, shape, true);
        s.push_str("@group(0) @binding(3) var<storage, read_write> sums: array<f32>;\n");
        let main = main_of_each("number");
        let _ = write!(
            s,
            "{main}
    if (number >= arrayLength(&sums)) {{ return; }}
    let head = number % {heads}u;
    let sequence = number / {heads}u;
    let tokens = {all} * {heads}u / arrayLength(&sums);
    let first = sequence * tokens;
    var top = -3.0e38;
    var total = 0.0;
",
            all = tokens_in("kv", 2, shape)
        );
        for i in 0..quads {
            let _ = writeln!(
                s,
                "    let q{i} = query_at(0u, 0u, head, {i}u) * {scale:?};
    var y{i} = vec4<f32>();"
            );
        }
        s.push_str("    for (var token = first; token < first + tokens; token++) {\n");
        dot_over(&mut s, "score", quads, "q#", "kv_at(token, 0u, head, #u)");
        s.push_str(
            "        let highest = max(top, score);
        let shrink = exp(top - highest);
        let share = exp(score - highest);
        top = highest;
        total = total * shrink + share;
",
        );
        for i in 0..quads {
            let _ = writeln!(
                s,
                "        y{i} = fma(vec4<f32>(share), kv_at(token, 1u, head, {i}u), y{i} * shrink);"
            );
        }
        s.push_str("    }\n");
        for i in 0..quads {
            let _ = writeln!(s, "    put_y(sequence, 0u, head, {i}u, y{i} / total);");
        }
        s.push_str("    sums[number] = top + log(total);\n}\n");
        s
    }
}

impl AttendKeys {
    /// An invocation for each head of each token.
    pub fn wgsl(&self) -> String {
        let Self { heads, head_dim } = *self;
        let quads = head_dim.div_ceil(4);
        let scale = f64::from(head_dim).powf(-0.5) as f32;
        let shape = [heads, head_dim];
        let mut s = String::new();
        heads_of(&mut s, 0, "query", 1, shape, false);
        heads_of(&mut s, 1, "kv", 2, shape, false);
        heads_of(&mut s, 2, "y", 1, shape, false);
        s.push_str("@group(0) @binding(3) var<storage, read> sums: array<f32>;\n");
        heads_of(&mut s, 4, "dy", 1, shape, false);
        heads_of(&mut s, 5, "d", 2, shape, true);
        s.push_str("@group(0) @binding(6) var<storage, read_write> slopes: array<f32>;\n");
        let main = main_of_each("number");
        let _ = write!(
            s,
            "{main}
    if (number >= arrayLength(&slopes)) {{ return; }}
    let head = number % {heads}u;
    let token = number / {heads}u;
    let tokens = arrayLength(&slopes) / arrayLength(&sums);
    let sequence = token / tokens;
"
        );
        for i in 0..quads {
            let _ = writeln!(
                s,
                "    let q{i} = query_at(0u, 0u, head, {i}u);
    let g{i} = dy_at(sequence, 0u, head, {i}u);"
            );
        }
        dot_over(&mut s, "delta", quads, "g#", "y_at(sequence, 0u, head, #u)");
        dot_over(&mut s, "score", quads, "q#", "kv_at(token, 0u, head, #u)");
        dot_over(&mut s, "dp", quads, "g#", "kv_at(token, 1u, head, #u)");
        let _ = writeln!(
            s,
            "    let share = exp(score * {scale:?} - sums[sequence * {heads}u + head]);
    let slope = share * (dp - delta) * {scale:?};
    slopes[number] = slope;"
        );
        for i in 0..quads {
            let _ = writeln!(
                s,
                "    put_d(token, 0u, head, {i}u, slope * q{i});
    put_d(token, 1u, head, {i}u, share * g{i});"
            );
        }
        s.push_str("}\n");
        s
    }
}

impl AttendQuery {
    /// An invocation for each four channels of each head goes through the tokens of all sequences.
    pub fn wgsl(&self) -> String {
        let Self { heads, head_dim } = *self;
        let quads = head_dim.div_ceil(4);
        let shape = [heads, head_dim];
        let mut s = String::new();
        heads_of(&mut s, 0, "kv", 2, shape, false);
        s.push_str("@group(0) @binding(1) var<storage, read> slopes: array<f32>;\n");
        heads_of(&mut s, 2, "d", 1, shape, true);
        let main = main_of_each("number");
        let _ = write!(
            s,
            "{main}
    if (number >= {all}u) {{ return; }}
    let head = number / {quads}u;
    let i = number % {quads}u;
    var sum = vec4<f32>();
    for (var token = 0u; token < arrayLength(&slopes) / {heads}u; token++) {{
        sum = fma(vec4<f32>(slopes[token * {heads}u + head]), kv_at(token, 0u, head, i), sum);
    }}
    put_d(0u, 0u, head, i, sum);
}}
",
            all = heads * quads
        );
        s
    }
}

impl AttentionKeys {
    pub fn wgsl(&self) -> String {
        let Self {
            heads,
            head_dim,
            mask,
            keys,
        } = *self;
        let quads = head_dim.div_ceil(4);
        let scale = f64::from(head_dim).powf(-0.5) as f32;
        let shape = [heads, head_dim];
        let mut s = String::new();
        heads_of(&mut s, 0, "qkv", 3, shape, false);
        s.push_str("@group(0) @binding(1) var<storage, read> sums: array<f32>;\n");
        s.push_str("@group(0) @binding(2) var<storage, read> delta: array<f32>;\n");
        heads_of(&mut s, 3, "dy", 1, shape, false);
        heads_of(&mut s, 4, "d", 3, shape, true);
        attention_main(&mut s, shape, keys);
        s.push_str(&depth(quads));
        // The first query that sees a key.
        let earliest = |key: String| match mask {
            AttentionMask::Full => "0u".to_owned(),
            AttentionMask::Causal { block } => format!("{key} - {key} % {block}u"),
        };
        for r in 0..keys {
            let _ = writeln!(
                s,
                "    let earliest{r} = {};
    var k{r}: array<vec4<f32>, {quads}>;
    var v{r}: array<vec4<f32>, {quads}>;
    var dk{r}: array<vec4<f32>, {quads}>;
    var dv{r}: array<vec4<f32>, {quads}>;
    {CHANNELS}
        k{r}[i] = qkv_at(own{r}, 1u, head, i) * {scale:?};
        v{r}[i] = qkv_at(own{r}, 2u, head, i);
    }}",
                earliest(format!("token{r}"))
            );
        }
        let _ = writeln!(
            s,
            "    for (var other = earliest0; other < tokens; other += {OTHERS}u) {{"
        );
        for k in 0..OTHERS {
            let _ = writeln!(s, "        let query{k} = min(other + {k}u, last);");
            for r in 0..keys {
                let _ = writeln!(
                    s,
                    "        var s{r}_{k} = 0.0;\n        var dp{r}_{k} = 0.0;"
                );
            }
        }
        let load = |s: &mut String, k: u32| {
            let _ = writeln!(
                s,
                "            let q{k} = qkv_at(first + query{k}, 0u, head, i);
            let g{k} = dy_at(first + query{k}, 0u, head, i);"
            );
        };
        let _ = writeln!(s, "        {CHANNELS}");
        for k in 0..OTHERS {
            load(&mut s, k);
            for r in 0..keys {
                add_dot(
                    &mut s,
                    &format!("s{r}_{k}"),
                    &format!("q{k}"),
                    &format!("k{r}[i]"),
                );
                add_dot(
                    &mut s,
                    &format!("dp{r}_{k}"),
                    &format!("g{k}"),
                    &format!("v{r}[i]"),
                );
            }
        }
        s.push_str("        }\n");
        for k in 0..OTHERS {
            let _ = writeln!(
                s,
                "        let sum{k} = sums[heads_row + query{k}];\n        let delta{k} = delta[heads_row + query{k}];"
            );
            for r in 0..keys {
                let _ = writeln!(
                    s,
                    "        let p{r}_{k} = select(0.0, exp(s{r}_{k} - sum{k}), other + {k}u < tokens && other + {k}u >= earliest{r});
        let ds{r}_{k} = p{r}_{k} * (dp{r}_{k} - delta{k});"
                );
            }
        }
        let _ = writeln!(s, "        {CHANNELS}");
        for k in 0..OTHERS {
            load(&mut s, k);
            for r in 0..keys {
                let _ = writeln!(
                    s,
                    "            dv{r}[i] = fma(vec4<f32>(p{r}_{k}), g{k}, dv{r}[i]);
            dk{r}[i] = fma(vec4<f32>(ds{r}_{k}), q{k}, dk{r}[i]);"
                );
            }
        }
        s.push_str("        }\n    }\n");
        for r in 0..keys {
            let _ = writeln!(
                s,
                "    if (token + {r}u < tokens) {{
        {CHANNELS}
            put_d(own{r}, 1u, head, i, dk{r}[i] * {scale:?});
            put_d(own{r}, 2u, head, i, dv{r}[i]);
        }}
    }}"
            );
        }
        s.push_str("}\n");
        s
    }
}

/// Rows of one or two buffers, picked by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Select {
    pub width: u32,
    pub rest: bool,
    pub added: bool,
}

impl Select {
    pub fn wgsl(&self) -> String {
        let Self { width, rest, added } = *self;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", width);
        s.push_str("@group(0) @binding(1) var<storage, read> index: array<i32>;\n");
        let mut binding = 2;
        let mut value = "x_at(taken, i)".to_owned();
        if rest {
            rows_of_f32(&mut s, binding, "rest", width);
            binding += 1;
            s.push_str("fn source_at(taken: u32, i: u32) -> vec4<f32> {\n");
            let _ = write!(
                s,
                "    let rows = {};
    if (taken < rows) {{ return x_at(taken, i); }}
    return rest_at(taken - rows, i);
}}
",
                rows_in("x", width)
            );
            "source_at(taken, i)".clone_into(&mut value);
        }
        if added {
            rows_of_f32(&mut s, binding, "added", width);
            binding += 1;
            value.push_str(" + added_at(row, i)");
        }
        output_rows(&mut s, binding, "y", width);
        each_quad(&mut s, width, "    let taken = u32(index[row]);\n", &value);
        s
    }
}

/// For each of the first rows that can be picked, or of the last, the sum of the rows of `dy` for which it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SelectGradient {
    pub width: u32,
    pub last: bool,
}

impl SelectGradient {
    pub fn wgsl(&self) -> String {
        let Self { width, last } = *self;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "dy", width);
        s.push_str("@group(0) @binding(1) var<storage, read> offsets: array<i32>;\n");
        s.push_str("@group(0) @binding(2) var<storage, read> places: array<i32>;\n");
        output_rows(&mut s, 3, "y", width);
        let first = if last {
            "arrayLength(&offsets) - 1u - y_rows()"
        } else {
            "0u"
        };
        let before = format!(
            "    let place = row + {first};
    var sum = vec4<f32>();
    for (var at = offsets[place]; at < offsets[place + 1u]; at++) {{ sum += dy_at(u32(places[at]), i); }}
"
        );
        each_quad(&mut s, width, &before, "sum");
        s
    }
}

/// The distance of rows, or its gradient with respect to the first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowDistance {
    pub width: u32,
    /// The function of an element's difference, as [`distance_wgsl`] writes it.
    pub function: String,
    pub gradient: bool,
}

/// `fn value(d)` and `fn slope(d)` of a distance, element by element.
pub fn distance_wgsl(distance: Distance) -> String {
    let (value, slope) = match distance {
        Distance::SmoothL1 { beta } => {
            let beta = beta as f32;
            (
                format!(
                    "select(abs(d) - {half:?}, d * d * {inverse:?}, abs(d) < vec4<f32>({beta:?}))",
                    half = 0.5 * beta,
                    inverse = 0.5 / beta
                ),
                format!(
                    "clamp(d * {:?}, vec4<f32>(-1.0), vec4<f32>(1.0))",
                    1.0 / beta
                ),
            )
        }
        Distance::L1 { power: 1.0 } => ("abs(d)".into(), "sign(d)".into()),
        Distance::L1 { power } => {
            let p = power as f32;
            (
                format!("pow(abs(d), vec4<f32>({p:?})) * {:?}", 1.0 / p),
                format!("sign(d) * pow(abs(d), vec4<f32>({:?}))", p - 1.0),
            )
        }
        Distance::Mse => ("d * d".into(), "2.0 * d".into()),
    };
    format!(
        "fn value(d: vec4<f32>) -> vec4<f32> {{ return {value}; }}
fn slope(d: vec4<f32>) -> vec4<f32> {{ return {slope}; }}
"
    )
}

impl RowDistance {
    pub fn wgsl(&self) -> String {
        let width = self.width;
        let share = f64::from(width).recip() as f32;
        let mut s = self.function.clone();
        rows_of_f32(&mut s, 0, "p", width);
        rows_of_f32(&mut s, 1, "t", width);
        if self.gradient {
            s.push_str("@group(0) @binding(2) var<storage, read> dy: array<f32>;\n");
            output_rows(&mut s, 3, "y", width);
            let value = format!("slope(p_at(row, i) - t_at(row, i)) * dy[row] * {share:?}");
            each_quad(&mut s, width, "", &value);
        } else {
            let _ = write!(
                s,
                "@group(0) @binding(2) var<storage, read_write> y: array<f32>;
{main}
    if (row >= arrayLength(&y)) {{ return; }}
    var sum = vec4<f32>();
    for (var i = 0u; i < {quads}u; i++) {{ sum += value(p_at(row, i) - t_at(row, i)); }}
    y[row] = dot(sum, vec4<f32>(1.0)) * {share:?};
}}
",
                main = main_of_each("row"),
                quads = width.div_ceil(4)
            );
        }
        s
    }
}

/// What is done over the tokens of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    Mean,
    Sum,
    /// That of the mean: each token gets its share.
    Gradient,
}

/// The mean or sum over tokens, or the gradient of the mean.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pooled {
    pub width: u32,
    pub tokens: u32,
    pub kind: Pooling,
}

impl Pooled {
    pub fn wgsl(&self) -> String {
        let Self {
            width,
            tokens,
            kind,
        } = *self;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", width);
        output_rows(&mut s, 1, "y", width);
        let share = match kind {
            Pooling::Sum => 1.0,
            Pooling::Mean | Pooling::Gradient => f64::from(tokens).recip() as f32,
        };
        if kind == Pooling::Gradient {
            let value = format!("x_at(row / {tokens}u, i) * {share:?}");
            each_quad(&mut s, width, "", &value);
        } else {
            let before = format!(
                "    var sum = vec4<f32>();
    for (var token = 0u; token < {tokens}u; token++) {{ sum += x_at(row * {tokens}u + token, i); }}
"
            );
            each_quad(&mut s, width, &before, &format!("sum * {share:?}"));
        }
        s
    }
}

/// BatchNorm by the batch's statistics, which it writes too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchNorm {
    pub width: u32,
    pub eps: u32,
}

/// Its gradients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchNormGradients {
    pub width: u32,
    pub eps: u32,
}

impl BatchNorm {
    pub fn wgsl(&self) -> String {
        let width = self.width;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", width);
        rows_of_f32(&mut s, 1, "gain", width);
        rows_of_f32(&mut s, 2, "shift", width);
        output_rows(&mut s, 3, "y", width);
        output_rows(&mut s, 4, "mean", width);
        output_rows(&mut s, 5, "variance", width);
        let _ = write!(
            s,
            "@compute @workgroup_size({ROW_GROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let i = id.x;
    if (i >= {quads}u) {{ return; }}
    let rows = y_rows();
    var total = vec4<f32>();
    for (var row = 0u; row < rows; row++) {{ total += x_at(row, i); }}
    let mean_of = total / f32(rows);
    var squares = vec4<f32>();
    for (var row = 0u; row < rows; row++) {{
        let d = x_at(row, i) - mean_of;
        squares = fma(d, d, squares);
    }}
    let variance_of = squares / f32(rows);
    put_mean(0u, i, mean_of);
    put_variance(0u, i, variance_of);
    let factor = gain_at(0u, i) / sqrt(variance_of + {eps:?});
    for (var row = 0u; row < rows; row++) {{ put_y(row, i, (x_at(row, i) - mean_of) * factor + shift_at(0u, i)); }}
}}
",
            quads = width.div_ceil(4),
            eps = f32::from_bits(self.eps)
        );
        s
    }
}

impl BatchNormGradients {
    pub fn wgsl(&self) -> String {
        let width = self.width;
        let mut s = String::new();
        for (binding, name) in (0..).zip(["x", "gain", "mean", "variance", "dy"]) {
            rows_of_f32(&mut s, binding, name, width);
        }
        output_rows(&mut s, 5, "y", width);
        output_rows(&mut s, 6, "d_gain", width);
        output_rows(&mut s, 7, "d_shift", width);
        let _ = write!(
            s,
            "@compute @workgroup_size({ROW_GROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let i = id.x;
    if (i >= {quads}u) {{ return; }}
    let rows = y_rows();
    let center = mean_at(0u, i);
    let scale = 1.0 / sqrt(variance_at(0u, i) + {eps:?});
    var gain_sum = vec4<f32>();
    var shift_sum = vec4<f32>();
    for (var row = 0u; row < rows; row++) {{
        let g = dy_at(row, i);
        shift_sum += g;
        gain_sum = fma(g, (x_at(row, i) - center) * scale, gain_sum);
    }}
    put_d_gain(0u, i, gain_sum);
    put_d_shift(0u, i, shift_sum);
    let factor = gain_at(0u, i) * scale;
    for (var row = 0u; row < rows; row++) {{
        let n = (x_at(row, i) - center) * scale;
        put_y(row, i, factor * (dy_at(row, i) - (shift_sum + n * gain_sum) / f32(rows)));
    }}
}}
",
            quads = width.div_ceil(4),
            eps = f32::from_bits(self.eps)
        );
        s
    }
}

/// The sum of two buffers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sum {
    pub width: u32,
}

impl Sum {
    pub fn wgsl(&self) -> String {
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "a", self.width);
        rows_of_f32(&mut s, 1, "b", self.width);
        output_rows(&mut s, 2, "y", self.width);
        each_quad(&mut s, self.width, "", "a_at(row, i) + b_at(row, i)");
        s
    }
}

/// `a · b + c`, where `c` may be left out; `b` and `c` may have fewer rows, which are repeated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MultiplyAdd {
    pub width: u32,
    pub added: bool,
}

impl MultiplyAdd {
    pub fn wgsl(&self) -> String {
        let Self { width, added } = *self;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "a", width);
        rows_of_f32(&mut s, 1, "b", width);
        let repeated = |name: &str| format!("{name}_at(row % {}, i)", rows_in(name, width));
        let mut value = format!("a_at(row, i) * {}", repeated("b"));
        if added {
            rows_of_f32(&mut s, 2, "c", width);
            let _ = write!(value, " + {}", repeated("c"));
        }
        output_rows(&mut s, 2 + u32::from(added), "y", width);
        each_quad(&mut s, width, "", &value);
        s
    }
}

/// The elements of a buffer times the first of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scaled {
    pub width: u32,
}

impl Scaled {
    pub fn wgsl(&self) -> String {
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", self.width);
        s.push_str("@group(0) @binding(1) var<storage, read> by: array<f32>;\n");
        output_rows(&mut s, 2, "y", self.width);
        each_quad(&mut s, self.width, "", "x_at(row, i) * by[0]");
        s
    }
}

/// An AdamW step, of parameters as rows of `width`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdamWStep {
    pub width: u32,
    /// Whether the outputs are the parameter and its moments themselves, which are then no inputs.
    pub in_place: bool,
}

impl AdamWStep {
    pub fn wgsl(&self) -> String {
        let Self { width, in_place } = *self;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "g", width);
        s.push_str("@group(0) @binding(1) var<storage, read> numbers: array<f32>;\n");
        let [p, m, v] = renewed(
            &mut s,
            2,
            ["p", "m", "v"],
            ["y", "first", "second"],
            width,
            in_place,
        );
        let before = format!(
            "    let g = g_at(row, i) * numbers[6];
    let m = numbers[1] * {m}_at(row, i) + (1.0 - numbers[1]) * g;
    let v = numbers[2] * {v}_at(row, i) + (1.0 - numbers[2]) * g * g;
    put_first(row, i, m);
    put_second(row, i, v);
"
        );
        let value = format!(
            "numbers[0] * {p}_at(row, i) - numbers[4] * m / (sqrt(v) * numbers[5] + numbers[3])"
        );
        each_quad(&mut s, width, &before, &value);
        s
    }
}

/// A step of an exponential moving average.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Averaged {
    pub width: u32,
    /// Whether the output is the average itself, which is then no input.
    pub in_place: bool,
}

impl Averaged {
    pub fn wgsl(&self) -> String {
        let Self { width, in_place } = *self;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "q", width);
        s.push_str("@group(0) @binding(1) var<storage, read> momentum: array<f32>;\n");
        let [k] = renewed(&mut s, 2, ["k"], ["y"], width, in_place);
        let value = format!("momentum[0] * {k}_at(row, i) + (1.0 - momentum[0]) * q_at(row, i)");
        each_quad(&mut s, width, "", &value);
        s
    }
}

/// Declares, from `binding` on, the buffers `old` and then `new`, or `in_place` only these; gives the names to read from.
fn renewed<const N: usize>(
    source: &mut String,
    binding: u32,
    old: [&'static str; N],
    new: [&'static str; N],
    width: u32,
    in_place: bool,
) -> [&'static str; N] {
    let (mut binding, declare) = (binding, if in_place { rows_in_place } else { output_rows });
    if !in_place {
        for name in old {
            rows_of_f32(source, binding, name, width);
            binding += 1;
        }
    }
    for (binding, name) in (binding..).zip(new) {
        declare(source, binding, name, width);
    }
    if in_place { new } else { old }
}

/// A running sum of squares, or of squared differences, in lanes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AddSquares {
    pub width: u32,
    pub minus: bool,
}

impl AddSquares {
    pub fn wgsl(&self) -> String {
        let mut s = String::new();
        s.push_str("@group(0) @binding(0) var<storage, read> total: array<f32>;\n");
        rows_of_f32(&mut s, 1, "x", self.width);
        if self.minus {
            rows_of_f32(&mut s, 2, "minus", self.width);
        }
        let _ = write!(
            s,
            "@group(0) @binding({output}) var<storage, read_write> y: array<f32>;
@compute @workgroup_size({SQUARE_LANES})
fn main(@builtin(local_invocation_index) lane: u32) {{
    var sum = vec4<f32>();
    let rows = {rows};
    for (var row = lane; row < rows; row += {SQUARE_LANES}u) {{
        let x = {value};
        sum = fma(x, x, sum);
    }}
    y[lane] = total[lane] + dot(sum, vec4<f32>(1.0));
}}
",
            output = if self.minus { 3 } else { 2 },
            value = if self.minus {
                "x_at(row, 0u) - minus_at(row, 0u)"
            } else {
                "x_at(row, 0u)"
            },
            rows = rows_in("x", self.width)
        );
        s
    }
}

/// Values in f16, two to a word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Halved;

impl Halved {
    pub fn wgsl(&self) -> String {
        format!(
            "@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
{main}
    if (number >= arrayLength(&y)) {{ return; }}
    var pair = vec2<f32>(x[2u * number], 0.0);
    if (2u * number + 1u < arrayLength(&x)) {{ pair.y = x[2u * number + 1u]; }}
    y[number] = pack2x16float(clamp(pair, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
}}
",
            main = main_of_each("number")
        )
    }
}

/// The factor that clips gradients, in its place among the numbers of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clipped;

impl Clipped {
    pub fn wgsl(&self) -> String {
        format!(
            "@group(0) @binding(0) var<storage, read> total: array<f32>;
@group(0) @binding(1) var<storage, read> numbers: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn main() {{
    var sum = 0.0;
    for (var lane = 0u; lane < {SQUARE_LANES}u; lane++) {{ sum += total[lane]; }}
    for (var i = 0u; i < arrayLength(&y); i++) {{ y[i] = numbers[i]; }}
    y[6] = numbers[6] * min(1.0, numbers[7] / (sqrt(sum) + 1e-6));
}}
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::wgsl::tests::assert_valid;
    use super::*;

    #[test]
    fn every_kernel_is_valid_and_but_for_shared_rows_without_optional_features() {
        for (d_in, d_out) in [(192, 768), (25, 30), (1, 1), (24, 65)] {
            for weight in [Kept::Full, Kept::Half, Kept::Quantized] {
                for lanes in [1, 4, 8] {
                    let kernel = LinearInput {
                        d_in,
                        d_out,
                        weight,
                        tile_rows: 8,
                        lanes,
                    };
                    assert_valid(&kernel.wgsl());
                }
            }
            assert_valid(&LinearParameters { d_in, d_out }.wgsl());
        }
        let eps = 1e-6f32.to_bits();
        for width in [1, 4, 30, 1408] {
            for gradient in [false, true] {
                for activation in [Activation::Gelu, Activation::Relu, Activation::Silu] {
                    assert_valid(
                        &Activate {
                            width,
                            activation,
                            gradient,
                        }
                        .wgsl(),
                    );
                }
                for distance in [
                    Distance::SmoothL1 { beta: 1.0 },
                    Distance::L1 { power: 1.0 },
                    Distance::L1 { power: 1.5 },
                    Distance::Mse,
                ] {
                    assert_valid(
                        &RowDistance {
                            width,
                            function: distance_wgsl(distance),
                            gradient,
                        }
                        .wgsl(),
                    );
                }
            }
            assert_valid(&NormRows { width, eps }.wgsl());
            assert_valid(&NormColumns { width }.wgsl());
            for (rest, added) in [(false, false), (true, false), (false, true), (true, true)] {
                assert_valid(&Select { width, rest, added }.wgsl());
            }
            for last in [false, true] {
                assert_valid(&SelectGradient { width, last }.wgsl());
            }
            assert_valid(&BatchNorm { width, eps }.wgsl());
            assert_valid(&BatchNormGradients { width, eps }.wgsl());
            for kind in [Pooling::Mean, Pooling::Sum, Pooling::Gradient] {
                assert_valid(
                    &Pooled {
                        width,
                        tokens: 49,
                        kind,
                    }
                    .wgsl(),
                );
            }
            assert_valid(&Scaled { width }.wgsl());
            assert_valid(&Sum { width }.wgsl());
            for added in [false, true] {
                assert_valid(&MultiplyAdd { width, added }.wgsl());
            }
            for in_place in [false, true] {
                assert_valid(&AdamWStep { width, in_place }.wgsl());
                assert_valid(&Averaged { width, in_place }.wgsl());
            }
            for minus in [false, true] {
                assert_valid(&AddSquares { width, minus }.wgsl());
            }
        }
        assert_valid(&Clipped.wgsl());
        assert_valid(&Halved.wgsl());
        for (heads, head_dim) in [(1, 1), (3, 64), (4, 6)] {
            for mask in [AttentionMask::Full, AttentionMask::Causal { block: 3 }] {
                for own in [1, 4] {
                    let queries = AttentionQueries {
                        heads,
                        head_dim,
                        mask,
                        queries: own,
                    };
                    assert_valid(&queries.wgsl());
                    let keys = AttentionKeys {
                        heads,
                        head_dim,
                        mask,
                        keys: own,
                    };
                    assert_valid(&keys.wgsl());
                }
            }
            assert_valid(&Attend { heads, head_dim }.wgsl());
            assert_valid(&AttendKeys { heads, head_dim }.wgsl());
            assert_valid(&AttendQuery { heads, head_dim }.wgsl());
        }
    }
}
