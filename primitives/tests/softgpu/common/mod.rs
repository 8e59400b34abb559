//! What the tests share: running a kernel on softgpu, and programs made at random.

pub(crate) mod generate;
pub(crate) mod soft;

use pxos_primitives::{Element, Options, Program, compile};

/// Compiles a text that must be right.
pub(crate) fn compiled(text: &str, options: &Options) -> Program {
    compile(text, options).unwrap_or_else(|found| {
        panic!("{}\n{text}", found.iter().map(|d| d.render("test", text)).collect::<String>())
    })
}

/// A kernel's arguments in host memory.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Array(Element, Vec<u8>),
    Scalar(u64),
}

/// Numbers that look random and are the same every time.
#[derive(Debug, Clone)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) as u32
    }

    /// Below a bound.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u32) as usize]
    }

    /// An array of plausible values.
    pub(crate) fn array(&mut self, element: Element, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..length {
            let small = self.below(2001) as f32 / 16.0 - 62.5;
            match element {
                Element::Byte => bytes.push(self.next() as u8),
                Element::Int => bytes.extend((self.below(2001) as i32 - 1000).to_le_bytes()),
                Element::Uint | Element::Pixel => bytes.extend(self.next().to_le_bytes()),
                Element::Float => bytes.extend(small.to_le_bytes()),
                Element::Double => bytes.extend((f64::from(small) * 1.1).to_le_bytes()),
                // 1.0 to 2.0, and their negatives.
                Element::Half => bytes.extend(((self.next() as u16 & 0x83ff) | 0x3c00).to_le_bytes()),
            }
        }
        bytes
    }
}

/// Whether two arrays hold the same values; all NaNs are one.
pub(crate) fn same(element: Element, a: &[u8], b: &[u8]) -> Result<(), String> {
    let size = element.bytes();
    let number = |chunk: &[u8]| match element {
        Element::Float => f64::from(f32::from_le_bytes(chunk.try_into().unwrap())),
        Element::Double => f64::from_le_bytes(chunk.try_into().unwrap()),
        Element::Half => {
            let bits = u16::from_le_bytes(chunk.try_into().unwrap());
            if bits & 0x7fff > 0x7c00 { f64::NAN } else { 0.0 }
        }
        _ => 0.0,
    };
    for (index, (x, y)) in a.chunks(size).zip(b.chunks(size)).enumerate() {
        if x != y && !(number(x).is_nan() && number(y).is_nan()) {
            return Err(format!("element {index}: {x:02x?} ({}) and {y:02x?} ({})", number(x), number(y)));
        }
    }
    Ok(())
}
