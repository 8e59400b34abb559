//! Every program of `examples/`: on softgpu, as PTX, with the results of a reference written plainly here; and every
//! program of `examples/refused/` is refused for the reason that its first line states.
#![expect(clippy::tests_outside_test_module, reason = "all of it is tests")]

use crate::common::{Noise, Value, compiled, soft};
use pxos_primitives::{Element, Executor, Kernel, Options, Program, Workspace, compile, run_statements};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn example(name: &str) -> Program {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    compiled(&text, &Options::default())
}

fn floats(values: &[f32]) -> Value {
    Value::Array(Element::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn words(element: Element, values: &[u32]) -> Value {
    Value::Array(element, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn bytes(values: &[u8]) -> Value {
    Value::Array(Element::Byte, values.to_vec())
}

fn int(value: i32) -> Value {
    Value::Scalar(u64::from(value.cast_unsigned()))
}

fn float(value: f32) -> Value {
    Value::Scalar(u64::from(value.to_bits()))
}

fn as_bytes(value: &Value) -> &[u8] {
    match value {
        Value::Array(_, bytes) => bytes,
        Value::Scalar(_) => panic!("an array"),
    }
}

fn as_words(value: &Value) -> Vec<u32> {
    as_bytes(value).chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect()
}

fn as_floats(value: &Value) -> Vec<f32> {
    as_words(value).into_iter().map(f32::from_bits).collect()
}

fn some(seed: u64, count: usize) -> Vec<f32> {
    let mut noise = Noise::new(seed);
    (0..count).map(|_| noise.below(2001) as f32 / 16.0 - 62.5).collect()
}

fn run(program: &Program, kernel: &str, values: &mut [Value]) {
    soft::run(program.kernel(kernel).unwrap(), values, None).unwrap();
}

#[test]
fn every_example_is_named_here() {
    let mut found: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "px"))
        .collect();
    found.sort();
    let tested = include_str!("examples.rs");
    for name in &found {
        assert!(tested.contains(&format!("\"{name}\"")), "{name} has no test");
    }
    assert!(found.len() >= 9, "{found:?}");
}

#[test]
fn what_is_refused_says_why() {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder().join("refused")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().next().unwrap().strip_prefix("# refused: ").unwrap();
        let found = compile(&text, &Options::default()).unwrap_err();
        // One mistake is one error: what follows from it is none.
        assert!(found.len() == 1 && found[0].code == code, "{}: {found:?}", path.display());
        assert!(found.iter().all(|d| d.span.line > 1 && d.hint.is_some()), "{}: {found:?}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn vector_add() {
    let program = example("vector_add.px");
    let (a, b) = (some(1, 1000), some(2, 1000));
    let mut values = [floats(&a), floats(&b), floats(&[0.0; 1000]), int(1000)];
    run(&program, "vector_add", &mut values);
    let sum: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x + y).collect();
    assert_eq!(as_floats(&values[2]), sum);
}

#[test]
fn render_frame() {
    let program = example("render_frame.px");
    assert_eq!(program.kernels()[0].class(), pxos_primitives::Class::LatencyCritical);
    let mut values = [words(Element::Pixel, &[0; 640]), int(32), int(20)];
    run(&program, "render_frame", &mut values);
    let frame: Vec<u32> = (0..640)
        .map(|tid| {
            let (x, y) = (tid % 32, tid / 32);
            0xff00_0000 | ((x * x + y * y) >> 6 & 255) << 16 | y << 8 | x
        })
        .collect();
    assert_eq!(as_words(&values[0]), frame);
}

#[test]
fn train_neural_layer() {
    let program = example("train_neural_layer.px");
    let (neurons, inputs, rate) = (5, 8, 0.25_f32);
    let (w, b, x, t) = (some(1, neurons * inputs), some(2, neurons), some(3, inputs), some(4, neurons));
    let mut y = b.clone();
    for (neuron, sum) in y.iter_mut().enumerate() {
        for i in 0..inputs {
            *sum = w[neuron * inputs + i].mul_add(x[i], *sum);
        }
        *sum = sum.max(0.0);
    }
    let mut values = [floats(&w), floats(&b), floats(&x), floats(&vec![0.0; neurons]), int(inputs as i32)];
    run(&program, "forward", &mut values);
    assert_eq!(as_floats(&values[3]), y);
    let [w0, b0, x0, y0, _] = values;
    let mut values = [w0, b0, x0, y0, floats(&t), int(inputs as i32), float(rate)];
    run(&program, "train_neural_layer", &mut values);
    let step: Vec<f32> = y.iter().zip(&t).map(|(y, t)| rate * if *y > 0.0 { y - t } else { 0.0 }).collect();
    // w - step * x is contracted to one rounding, on every executor alike.
    let moved: Vec<f32> =
        (0..neurons * inputs).map(|k| (-step[k / inputs]).mul_add(x[k % inputs], w[k])).collect();
    assert_eq!(as_floats(&values[0]), moved);
    assert_eq!(as_floats(&values[1]), b.iter().zip(&step).map(|(b, s)| b - s).collect::<Vec<_>>());
}

struct OnSoft;

impl Executor for OnSoft {
    fn launch(
        &mut self,
        kernel: &Kernel,
        elements: Option<u64>,
        space: &mut Workspace,
    ) -> Result<(), String> {
        let mut values = Vec::new();
        for param in kernel.params() {
            match space.values.get(&param.name) {
                Some(pxos_primitives::Value::Buffer(b)) => {
                    values.push(Value::Array(b.element, b.bytes.clone()));
                }
                other => return Err(format!("{}: {other:?}", param.name)),
            }
        }
        soft::run(kernel, &mut values, elements).map_err(|fault| fault.to_string())?;
        for (param, value) in kernel.params().iter().zip(values) {
            if let (Value::Array(element, bytes), Some(slot)) = (value, space.values.get_mut(&param.name)) {
                *slot = pxos_primitives::Value::Buffer(pxos_primitives::Buffer { element, bytes });
            }
        }
        Ok(())
    }
}

#[test]
fn process_data() {
    let program = example("process_data.px");
    let data = some(9, 1000);
    let directory = std::env::temp_dir().join(format!("px-examples-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("input.f32"), as_bytes(&floats(&data))).unwrap();
    run_statements(&program, &directory, &mut Workspace::default(), &mut OnSoft).unwrap();
    let got = std::fs::read(directory.join("output.f32")).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let mut expected: Vec<f32> = data.iter().map(|v| v * 2.0 + 1.0).collect();
    for start in (0..1000).step_by(256) {
        let mut buffer = [0.0_f32; 256];
        let end = 1000.min(start + 256);
        buffer[..end - start].copy_from_slice(&expected[start..end]);
        for reach in [128, 64, 32, 16, 8, 4, 2, 1] {
            for local in 0..reach {
                buffer[local] += buffer[local + reach];
            }
        }
        expected[start] = buffer[0];
    }
    assert_eq!(as_floats(&Value::Array(Element::Float, got)), expected);
}

#[test]
fn filter_rows() {
    let program = example("filter_rows.px");
    let value = some(5, 700);
    let mut values = [floats(&value), words(Element::Int, &[0; 700]), words(Element::Int, &[0]), float(10.0)];
    // A thread for each row: nothing is written at the thread's own number.
    run(&program, "filter_rows", &mut values);
    let wanted: Vec<u32> = (0..700).filter(|row| value[*row as usize] > 10.0).collect();
    let count = as_words(&values[2])[0] as usize;
    let mut kept = as_words(&values[1])[..count].to_vec();
    kept.sort_unstable();
    assert_eq!(kept, wanted);
}

fn component(pixels: &[u32], at: usize, shift: u32) -> u32 {
    pixels[at] >> shift & 255
}

#[test]
fn gaussian_blur() {
    let program = example("gaussian_blur.px");
    let mut noise = Noise::new(6);
    let (width, height) = (40_i32, 30_i32);
    let image: Vec<u32> = (0..width * height).map(|_| noise.next()).collect();
    let mut values =
        [words(Element::Pixel, &image), words(Element::Pixel, &[0; 1200]), int(width), int(height)];
    run(&program, "gaussian_blur", &mut values);
    let weights = [1, 4, 6, 4, 1];
    let blurred: Vec<u32> = (0..width * height)
        .map(|tid| {
            let (x, y) = (tid % width, tid / width);
            let sum = |shift: u32| {
                let mut sum = 128;
                for (j, wy) in weights.iter().enumerate() {
                    for (i, wx) in weights.iter().enumerate() {
                        let u = (x + i as i32 - 2).clamp(0, width - 1);
                        let v = (y + j as i32 - 2).clamp(0, height - 1);
                        sum += wx * wy * component(&image, (v * width + u) as usize, shift);
                    }
                }
                (sum >> 8) << shift
            };
            sum(0) | sum(8) | sum(16) | sum(24)
        })
        .collect();
    assert_eq!(as_words(&values[1]), blurred);
}

#[test]
fn stencil() {
    let program = example("stencil.px");
    let (width, height) = (37, 23);
    let grid = some(7, width * height);
    let mut values =
        [floats(&grid), floats(&vec![0.0; width * height]), int(width as i32), int(height as i32)];
    run(&program, "stencil", &mut values);
    let next: Vec<f32> = (0..width * height)
        .map(|at| {
            let (x, y) = (at % width, at / width);
            if x == 0 || x == width - 1 || y == 0 || y == height - 1 {
                grid[at]
            } else {
                (grid[at - 1] + grid[at + 1] + grid[at - width] + grid[at + width]) * 0.25
            }
        })
        .collect();
    assert_eq!(as_floats(&values[1]), next);
}

#[test]
fn color_correct() {
    let program = example("color_correct.px");
    assert!(program.distribute());
    let mut noise = Noise::new(8);
    let image: Vec<u32> = (0..500).map(|_| noise.next()).collect();
    let brightness = 0.05_f32;
    let mut values = [words(Element::Pixel, &image), float(brightness)];
    run(&program, "color_correct", &mut values);
    for (before, after) in image.iter().zip(as_words(&values[0])) {
        let c = |shift: u32| f64::from(before >> shift & 255);
        let luma = 0.2126 * c(0) + 0.7152 * c(8) + 0.0722 * c(16);
        for shift in [0, 8, 16] {
            let saturated = luma + (c(shift) - luma) * 0.9;
            let exact = (saturated - 127.5) * 1.2 + 127.5 + f64::from(brightness) * 255.0;
            let got = f64::from(after >> shift & 255);
            assert!((exact.clamp(0.0, 255.0) - got).abs() <= 0.501, "{before:#x}: {exact} {got}");
        }
        assert_eq!(before >> 24, after >> 24, "alpha stays");
    }
}

#[test]
fn library() {
    let program = example("library.px");
    let (a, b) = (some(1, 33 * 20), some(2, 20 * 65));
    let mut values = [floats(&a), floats(&b), floats(&vec![0.0; 33 * 65])];
    run(&program, "product", &mut values);
    for (at, got) in as_floats(&values[2]).into_iter().enumerate() {
        let (row, column) = (at / 65, at % 65);
        let exact: f64 = (0..20).map(|k| f64::from(a[row * 20 + k]) * f64::from(b[k * 65 + column])).sum();
        assert!((exact - f64::from(got)).abs() <= 0.05, "{row}, {column}: {exact} {got}");
    }
    let mut keys = some(3, 1234);
    let mut values = [floats(&keys)];
    run(&program, "sorted", &mut values);
    keys.sort_by(f32::total_cmp);
    assert_eq!(as_floats(&values[0]), keys);
    // FIPS 197, appendix C.1.
    let plain: Vec<u8> = (0..16).map(|n| n * 0x11).collect();
    let key: Vec<u8> = (0..16).collect();
    let mut values = [bytes(&plain), bytes(&key), bytes(&[0; 16])];
    run(&program, "encrypted", &mut values);
    let secret = 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a_u128;
    assert_eq!(as_bytes(&values[2]), secret.to_be_bytes());
    // FIPS 180-2, appendix B.1: "abc", the last message, which is shorter than the others.
    let mut data = vec![b'x'; 64];
    data.extend(b"abc");
    let mut values = [bytes(&data), bytes(&[0; 64])];
    run(&program, "digests", &mut values);
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let hex: String = as_bytes(&values[1])[32..].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, abc);
}
