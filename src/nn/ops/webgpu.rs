//! [`Ops`] on WebGPU: one WGSL kernel for each operation.
//!
//! The kernels keep their tiles in registers and use neither workgroup memory nor barriers nor subgroups: software
//! adapters and phones are several times slower with them, and no optional feature of the device is needed. Sizes that
//! belong to the model are constants of the shader; the number of rows is read from the length of the bound buffer, so
//! that another batch size does not compile another pipeline.

use std::fmt::Write;

use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, TensorMetadata};
use burn::cubecl::prelude::{CubeCount, CubeDim, KernelId};
use burn::cubecl::server::KernelArguments;
use burn::tensor::Shape;
use burn_wgpu::{CubeBackend, CubeTensor, KernelSource, SourceKernel, SourceTemplate};

use super::{Ops, ResidualPrimitive, WeightPrimitive};

/// Rows and vec4 columns of the output that one invocation of `linear` holds in registers.
const LINEAR_TILE: (u32, u32) = (4, 2);
const LINEAR_GROUP: (u32, u32) = (8, 8);
/// Workgroup size of the kernels whose invocations are independent rows.
const ROW_GROUP: u32 = 64;
/// Keys whose scores are computed together, so that the running softmax is rescaled once for all of them.
const ATTENTION_KEYS: u32 = 4;

impl Ops for CubeBackend {
    fn linear(
        x: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
        bias: FloatTensor<Self>,
        residual: ResidualPrimitive<Self>,
        gelu: bool,
    ) -> FloatTensor<Self> {
        let mut dims = x.shape().to_vec();
        let d_in = dims.pop().unwrap_or(1);
        let rows: usize = dims.iter().product();
        let d_out = bias.shape()[0];
        dims.push(d_out);
        let kernel = Linear {
            d_in: d_in as u32,
            d_out: d_out as u32,
            weight: match weight {
                WeightPrimitive::Full(_) => Kept::Full,
                WeightPrimitive::Half(_) => Kept::Half,
                WeightPrimitive::Quantized { .. } => Kept::Quantized,
            },
            residual: matches!(residual, ResidualPrimitive::Rows(_)),
            gelu,
        };
        let like = x.clone();
        let mut inputs = vec![x];
        match weight {
            WeightPrimitive::Full(weight) | WeightPrimitive::Half(weight) => inputs.push(weight),
            WeightPrimitive::Quantized { values, scales } => inputs.extend([values, scales]),
        }
        inputs.push(bias);
        if let ResidualPrimitive::Rows(residual) = residual {
            inputs.push(residual);
        }
        let columns = (d_out as u32).div_ceil(4 * LINEAR_TILE.1);
        let count = grid(
            columns.div_ceil(LINEAR_GROUP.0),
            (rows as u32).div_ceil(LINEAR_TILE.0 * LINEAR_GROUP.1),
        );
        launch(
            kernel,
            (LINEAR_GROUP.0, LINEAR_GROUP.1),
            count,
            inputs,
            &like,
            dims,
        )
    }

    fn norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let dims = x.shape().to_vec();
        let width = gain.shape()[0];
        let rows = dims.iter().product::<usize>() / width;
        let kernel = Norm {
            width: width as u32,
            eps: (eps as f32).to_bits(),
        };
        let like = x.clone();
        let count = row_grid(rows as u32);
        launch(
            kernel,
            (ROW_GROUP, 1),
            count,
            vec![x, gain, shift],
            &like,
            dims,
        )
    }

    fn self_attention(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        let shape = qkv.shape();
        let (batch, tokens, width) = (shape[0], shape[1], shape[2] / 3);
        let kernel = SelfAttention {
            tokens: tokens as u32,
            heads: heads as u32,
            head_dim: (width / heads) as u32,
        };
        let like = qkv.clone();
        let count = CubeCount::Static(
            (tokens as u32).div_ceil(ROW_GROUP),
            heads as u32,
            batch as u32,
        );
        launch(
            kernel,
            (ROW_GROUP, 1),
            count,
            vec![qkv],
            &like,
            vec![batch, tokens, width],
        )
    }

    fn transposed(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = x.shape();
        let (rows, columns) = (shape[0], shape[1]);
        let kernel = Transposed {
            rows: rows as u32,
            columns: columns as u32,
        };
        let like = x.clone();
        let count = grid((columns as u32).div_ceil(8), (rows as u32).div_ceil(8));
        launch(kernel, (8, 8), count, vec![x], &like, vec![columns, rows])
    }
}

fn grid(x: u32, y: u32) -> CubeCount {
    CubeCount::Static(x, y, 1)
}

/// Workgroups for independent rows, folded so that no dimension passes WebGPU's limit of 65,535.
fn row_grid(rows: u32) -> CubeCount {
    let groups = rows.div_ceil(ROW_GROUP);
    let x = groups.clamp(1, 65_535);
    grid(x, groups.div_ceil(x))
}

/// Runs `kernel` on contiguous `inputs`, bound in order and followed by the f32 output, which it returns.
fn launch<K: KernelSource>(
    kernel: K,
    group: (u32, u32),
    count: CubeCount,
    inputs: Vec<CubeTensor>,
    like: &CubeTensor,
    dims: Vec<usize>,
) -> CubeTensor {
    let client = like.client.clone();
    let shape = Shape::from(dims);
    let handle = client.empty(shape.num_elements() * size_of::<f32>());
    let output = CubeTensor::new_contiguous(
        client.clone(),
        like.device.clone(),
        shape,
        handle,
        DType::F32,
    );
    let mut arguments = KernelArguments::new();
    for input in inputs {
        let input = burn_wgpu::into_contiguous(input);
        arguments = arguments.with_buffer(input.handle.binding());
    }
    arguments = arguments.with_buffer(output.handle.clone().binding());
    let dim = CubeDim::new_2d(group.0, group.1);
    client.launch(Box::new(SourceKernel::new(kernel, dim)), count, arguments);
    output
}

/// How a weight lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kept {
    Full,
    Half,
    Quantized,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Linear {
    d_in: u32,
    d_out: u32,
    weight: Kept,
    residual: bool,
    gelu: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Norm {
    width: u32,
    eps: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SelfAttention {
    tokens: u32,
    heads: u32,
    head_dim: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transposed {
    rows: u32,
    columns: u32,
}

macro_rules! kernel_source {
    ($($kernel:ty),*) => {$(
        impl KernelSource for $kernel {
            fn source(&self) -> SourceTemplate {
                SourceTemplate::new(self.wgsl())
            }

            fn id(&self) -> KernelId {
                KernelId::new::<Self>().info(self.clone())
            }

            fn lang(&self) -> &'static str {
                "wgsl"
            }
        }
    )*};
}
kernel_source!(Linear, Norm, SelfAttention, Transposed);

/// Declares a storage buffer of f32 rows of `width`, and the function `{name}_at(row, i)` that reads elements
/// `4·i .. 4·i+4` of a row. Where `width` is no multiple of four the missing elements read as zero.
fn rows_of_f32(source: &mut String, binding: u32, name: &str, width: u32) {
    if width.is_multiple_of(4) {
        let _ = write!(
            source,
            "@group(0) @binding({binding}) var<storage, read> {name}: array<vec4<f32>>;
fn {name}_at(row: u32, i: u32) -> vec4<f32> {{ return {name}[row * {quads}u + i]; }}
",
            quads = width / 4
        );
    } else {
        let _ = write!(
            source,
            "@group(0) @binding({binding}) var<storage, read> {name}: array<f32>;
fn {name}_at(row: u32, i: u32) -> vec4<f32> {{
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

/// Declares the output buffer of f32 rows of `width`, its number of rows, and `put(row, i, value)`.
fn output_rows(source: &mut String, binding: u32, width: u32) {
    if width.is_multiple_of(4) {
        let _ = write!(
            source,
            "@group(0) @binding({binding}) var<storage, read_write> y: array<vec4<f32>>;
fn rows() -> u32 {{ return arrayLength(&y) / {quads}u; }}
fn put(row: u32, i: u32, value: vec4<f32>) {{ y[row * {quads}u + i] = value; }}
",
            quads = width / 4
        );
    } else {
        let _ = write!(
            source,
            "@group(0) @binding({binding}) var<storage, read_write> y: array<f32>;
fn rows() -> u32 {{ return arrayLength(&y) / {width}u; }}
fn put(row: u32, i: u32, value: vec4<f32>) {{
    for (var lane = 0u; lane < 4u && 4u * i + lane < {width}u; lane++) {{ y[row * {width}u + 4u * i + lane] = value[lane]; }}
}}
"
        );
    }
}

impl Linear {
    fn wgsl(&self) -> String {
        let Self { d_in, d_out, .. } = *self;
        let (tile_rows, tile_quads) = LINEAR_TILE;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", d_in);
        let mut binding = 2;
        match self.weight {
            Kept::Full => rows_of_f32(&mut s, 1, "w", d_out),
            kept => rows_of_packed(&mut s, 1, "w", d_out, kept),
        }
        if self.weight == Kept::Quantized {
            rows_of_f32(&mut s, 2, "scale", d_out);
            binding += 1;
        }
        rows_of_f32(&mut s, binding, "bias", d_out);
        if self.residual {
            binding += 1;
            rows_of_f32(&mut s, binding, "residual", d_out);
        }
        output_rows(&mut s, binding + 1, d_out);
        if self.gelu {
            s.push_str(GELU);
        }
        let quads = d_out.div_ceil(4);
        let _ = write!(
            s,
            "@compute @workgroup_size({gx}, {gy})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let column = id.x * {tile_quads}u;
    let row = id.y * {tile_rows}u;
    let last = rows() - 1u;
    if (row > last || column >= {quads}u) {{ return; }}
",
            gx = LINEAR_GROUP.0,
            gy = LINEAR_GROUP.1
        );
        for c in 0..tile_quads {
            let _ = writeln!(s, "    let n{c} = min(column + {c}u, {}u);", quads - 1);
        }
        for r in 0..tile_rows {
            let _ = writeln!(s, "    let m{r} = min(row + {r}u, last);");
            for c in 0..tile_quads {
                let _ = writeln!(s, "    var y{r}{c} = vec4<f32>();");
            }
        }
        let _ = writeln!(s, "    for (var k = 0u; k < {}u; k++) {{", d_in.div_ceil(4));
        for r in 0..tile_rows {
            let _ = writeln!(s, "        let x{r} = x_at(m{r}, k);");
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
        for c in 0..tile_quads {
            for r in 0..tile_rows {
                if self.weight == Kept::Quantized {
                    let _ = writeln!(s, "    y{r}{c} *= scale_at(0u, n{c});");
                }
                let _ = writeln!(s, "    y{r}{c} += bias_at(0u, n{c});");
                if self.gelu {
                    let _ = writeln!(s, "    y{r}{c} = gelu(y{r}{c});");
                }
                if self.residual {
                    let _ = writeln!(
                        s,
                        "    y{r}{c} += residual_at(m{r} % residual_rows(), n{c});"
                    );
                }
                let _ = writeln!(
                    s,
                    "    if (row + {r}u <= last && column + {c}u < {quads}u) {{ put(row + {r}u, column + {c}u, y{r}{c}); }}"
                );
            }
        }
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

/// Row of the weight for lane `lane` of the inner loop; past the end it repeats the last row, against which `x` is zero.
fn inner_row(d_in: u32, lane: u32) -> String {
    if d_in.is_multiple_of(4) {
        format!("4u * k + {lane}u")
    } else {
        format!("min(4u * k + {lane}u, {}u)", d_in - 1)
    }
}

/// GELU through erf, which WGSL lacks: Abramowitz and Stegun, formula 7.1.26, absolute error below 1.5e-7.
const GELU: &str = "fn gelu(x: vec4<f32>) -> vec4<f32> {
    let z = abs(x) * 0.70710678118654752;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return 0.5 * x * (1.0 + sign(x) * (1.0 - p * exp(-z * z)));
}
";

impl Norm {
    fn wgsl(&self) -> String {
        let width = self.width;
        let mut s = String::new();
        rows_of_f32(&mut s, 0, "x", width);
        rows_of_f32(&mut s, 1, "gain", width);
        rows_of_f32(&mut s, 2, "shift", width);
        output_rows(&mut s, 3, width);
        let quads = width.div_ceil(4);
        // The padding of a width that is no multiple of four reads as zero: `mean · padding` is what it would add to
        // the sum of squared deviations.
        let padding = f64::from(4 * quads - width);
        let _ = write!(
            s,
            "@compute @workgroup_size({ROW_GROUP})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
    let row = (group.y * groups.x + group.x) * {ROW_GROUP}u + lane;
    if (row >= rows()) {{ return; }}
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
        put(row, i, (x_at(row, i) - mean) * scale * gain_at(0u, i) + shift_at(0u, i));
    }}
}}
",
            eps = f32::from_bits(self.eps)
        );
        s
    }
}

impl SelfAttention {
    fn wgsl(&self) -> String {
        let Self {
            tokens,
            heads,
            head_dim,
        } = *self;
        let width = heads * head_dim;
        let quads = head_dim.div_ceil(4);
        let mut s = String::new();
        if head_dim.is_multiple_of(4) {
            let _ = write!(
                s,
                "@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
fn get(token: u32, part: u32, head: u32, i: u32) -> vec4<f32> {{ return qkv[token * {all}u + part * {one}u + head * {quads}u + i]; }}
fn put(token: u32, head: u32, i: u32, value: vec4<f32>) {{ y[token * {one}u + head * {quads}u + i] = value; }}
",
                all = 3 * width / 4,
                one = width / 4
            );
        } else {
            let _ = write!(
                s,
                "@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
fn get(token: u32, part: u32, head: u32, i: u32) -> vec4<f32> {{
    let j = 4u * i;
    let at = token * {all}u + part * {width}u + head * {head_dim}u + j;
    let inside = vec4<u32>(j, j + 1u, j + 2u, j + 3u) < vec4<u32>({head_dim}u);
    return select(vec4<f32>(), vec4<f32>(qkv[at], qkv[at + 1u], qkv[at + 2u], qkv[at + 3u]), inside);
}}
fn put(token: u32, head: u32, i: u32, value: vec4<f32>) {{
    for (var lane = 0u; lane < 4u && 4u * i + lane < {head_dim}u; lane++) {{
        y[token * {width}u + head * {head_dim}u + 4u * i + lane] = value[lane];
    }}
}}
",
                all = 3 * width
            );
        }
        let _ = write!(
            s,
            "@compute @workgroup_size({ROW_GROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {{
    if (id.x >= {tokens}u) {{ return; }}
    let head = group.y;
    let first = group.z * {tokens}u;
    let query = first + id.x;
    var top = -3.0e38;
    var total = 0.0;
"
        );
        let scale = f64::from(head_dim).powf(-0.5) as f32;
        for i in 0..quads {
            let _ = writeln!(s, "    let q{i} = get(query, 0u, head, {i}u) * {scale:?};");
            let _ = writeln!(s, "    var y{i} = vec4<f32>();");
        }
        let keys = ATTENTION_KEYS;
        let _ = writeln!(
            s,
            "    for (var key = 0u; key < {tokens}u; key += {keys}u) {{"
        );
        for k in 0..keys {
            let _ = writeln!(
                s,
                "        let k{k} = first + min(key + {k}u, {}u);",
                tokens - 1
            );
            let _ = writeln!(s, "        var a{k} = q0 * get(k{k}, 1u, head, 0u);");
            for i in 1..quads {
                let _ = writeln!(
                    s,
                    "        a{k} = fma(q{i}, get(k{k}, 1u, head, {i}u), a{k});"
                );
            }
            let _ = writeln!(
                s,
                "        let s{k} = select(-3.0e38, dot(a{k}, vec4<f32>(1.0)), key + {k}u < {tokens}u);"
            );
        }
        let highest = (0..keys).fold("top".to_owned(), |m, k| format!("max({m}, s{k})"));
        let _ = writeln!(s, "        let highest = {highest};");
        s.push_str("        let shrink = exp(top - highest);\n        top = highest;\n");
        for k in 0..keys {
            let _ = writeln!(s, "        let p{k} = exp(s{k} - top);");
        }
        let sum = (0..keys)
            .map(|k| format!("p{k}"))
            .collect::<Vec<_>>()
            .join(" + ");
        let _ = writeln!(s, "        total = total * shrink + {sum};");
        for i in 0..quads {
            let _ = writeln!(s, "        y{i} *= shrink;");
            for k in 0..keys {
                let _ = writeln!(
                    s,
                    "        y{i} = fma(vec4<f32>(p{k}), get(k{k}, 2u, head, {i}u), y{i});"
                );
            }
        }
        s.push_str("    }\n");
        for i in 0..quads {
            let _ = writeln!(s, "    put(query, head, {i}u, y{i} / total);");
        }
        s.push_str("}\n");
        s
    }
}

impl Transposed {
    fn wgsl(&self) -> String {
        let Self { rows, columns } = *self;
        format!(
            "@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    if (id.x < {columns}u && id.y < {rows}u) {{ y[id.x * {rows}u + id.y] = x[id.y * {columns}u + id.x]; }}
}}
"
        )
    }
}
