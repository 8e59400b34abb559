//! Values of the command line, and as kernels take them.

use pxos_primitives::{Buffer, Element, Param, ParamType, Value, Workspace};
use std::path::Path;

/// Most elements that one word of the command line may make.
const MAX_ELEMENTS: u64 = (1 << 31) - 8192;

/// Numbers that look random and are the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap_or(0)
    }
}

/// One number as an element of an array.
#[expect(clippy::cast_possible_truncation, reason = "a number becomes what the array holds, saturating")]
#[expect(clippy::cast_sign_loss, reason = "as above")]
pub(super) fn element_bytes(element: Element, value: f64) -> Vec<u8> {
    match element {
        Element::Byte => vec![value as u8],
        Element::Int => (value as i32).to_le_bytes().to_vec(),
        Element::Uint | Element::Pixel => (value as u32).to_le_bytes().to_vec(),
        Element::Float => (value as f32).to_le_bytes().to_vec(),
        Element::Double => value.to_le_bytes().to_vec(),
        Element::Half => pxos_primitives::half_bits(value as f32).to_le_bytes().to_vec(),
    }
}

/// A scalar parameter's bits.
pub(super) fn scalar_bits(element: Element, value: f64) -> u64 {
    let mut bits = [0; 8];
    let bytes = element_bytes(element, value);
    bits[..bytes.len()].copy_from_slice(&bytes);
    u64::from_le_bytes(bits)
}

/// An array of plausible numbers.
pub(super) fn random(element: Element, length: u64, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed);
    let mut bytes = Vec::new();
    for _ in 0..length {
        let next = noise.next();
        match element {
            Element::Pixel | Element::Uint => bytes.extend(next.to_le_bytes()),
            Element::Byte => bytes.push(next.to_le_bytes()[0]),
            Element::Int => bytes.extend((next % 2001).wrapping_sub(1000).to_le_bytes()),
            other => bytes.extend(element_bytes(other, f64::from(next % 2001) / 16.0 - 62.5)),
        }
    }
    bytes
}

/// Reads `NAME=VALUE`; the type is that of the parameter of the name.
pub(super) fn parse(word: &str, params: &[&Param], directory: &Path) -> Result<(String, Value), String> {
    let (name, text) = word.split_once('=').ok_or_else(|| format!("`{word}` is not NAME=VALUE"))?;
    let param = params
        .iter()
        .find(|param| param.name == name)
        .ok_or_else(|| format!("no kernel has a parameter `{name}`"))?;
    let wrong = |why: &str| format!("`{name}` is {}: `{text}` {why}", param.ty);
    let ParamType::Array(element) = param.ty else {
        let number = text.parse().map_err(|_| wrong("is no number"))?;
        return Ok((name.to_owned(), Value::Number(number)));
    };
    let count = |text: &str| {
        let count = text.parse::<u64>().ok().filter(|count| *count <= MAX_ELEMENTS);
        count.ok_or_else(|| wrong("is no number of elements"))
    };
    let bytes = if let Some(path) = text.strip_prefix('@') {
        let path = directory.join(path);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?
    } else if let Some(length) = text.strip_prefix("zeros:") {
        vec![0; usize::try_from(count(length)?).unwrap_or(0) * element.bytes()]
    } else if let Some(length) = text.strip_prefix("iota:") {
        #[expect(clippy::cast_precision_loss, reason = "below 2^31")]
        let bytes = (0..count(length)?).flat_map(|index| element_bytes(element, index as f64)).collect();
        bytes
    } else if let Some(length) = text.strip_prefix("random:") {
        random(element, count(length)?, 1)
    } else {
        let list: Vec<f64> = serde_json::from_str(text)
            .map_err(|_| wrong("is not [1,2,3], zeros:N, iota:N, random:N or @file"))?;
        list.into_iter().flat_map(|value| element_bytes(element, value)).collect()
    };
    if bytes.len() % element.bytes() != 0 {
        return Err(wrong("is no whole number of elements"));
    }
    Ok((name.to_owned(), Value::Buffer(Buffer { element, bytes })))
}

/// An array as JSON.
pub(super) fn to_json(buffer: &Buffer) -> serde_json::Value {
    let word = |chunk: &[u8]| u32::from_le_bytes(chunk.try_into().unwrap_or_default());
    let value = |chunk: &[u8]| -> serde_json::Value {
        match buffer.element {
            Element::Byte => chunk[0].into(),
            Element::Int => word(chunk).cast_signed().into(),
            Element::Uint | Element::Pixel => word(chunk).into(),
            Element::Float => f32::from_bits(word(chunk)).into(),
            Element::Double => f64::from_le_bytes(chunk.try_into().unwrap_or_default()).into(),
            Element::Half => {
                pxos_primitives::half_value(u16::from_le_bytes(chunk.try_into().unwrap_or_default())).into()
            }
        }
    };
    buffer.bytes.chunks_exact(buffer.element.bytes()).map(value).collect()
}

/// Takes a kernel's arguments out of the workspace, in order; [`give_back`] puts the arrays there again.
pub(super) fn take(params: &[Param], workspace: &mut Workspace) -> Result<Vec<Value>, String> {
    for param in params {
        match (param.ty, workspace.values.get(&param.name)) {
            (_, None) => return Err(format!("`{}` has no value; give one with --arg", param.name)),
            (ParamType::Array(_), Some(Value::Number(_)))
            | (ParamType::Scalar(_), Some(Value::Buffer(_))) => {
                return Err(format!("`{}` is {}", param.name, param.ty));
            }
            (ParamType::Array(element), Some(Value::Buffer(buffer))) if buffer.element != element => {
                let held = buffer.element.name();
                return Err(format!("`{}` is {}, not {held}[]", param.name, param.ty));
            }
            _ => {}
        }
    }
    let value = |param: &Param| match param.ty {
        ParamType::Array(_) => workspace.values.remove(&param.name),
        ParamType::Scalar(_) => workspace.values.get(&param.name).cloned(),
    };
    Ok(params.iter().map(value).map(|value| value.unwrap_or(Value::Number(0.0))).collect())
}

/// Puts arrays back.
pub(super) fn give_back(params: &[Param], values: Vec<Value>, workspace: &mut Workspace) {
    for (param, value) in params.iter().zip(values) {
        workspace.values.insert(param.name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(ty: ParamType) -> Param {
        Param { name: "a".to_owned(), ty }
    }

    #[test]
    fn words_become_arrays_of_the_parameters_type() {
        let floats = param(ParamType::Array(Element::Float));
        let read = |word: &str| parse(word, &[&floats], Path::new("."));
        let Ok((_, Value::Buffer(buffer))) = read("a=[1,2.5]") else { panic!("an array") };
        assert_eq!(to_json(&buffer), serde_json::json!([1.0, 2.5]));
        assert!(matches!(read("a=zeros:3"), Ok((_, Value::Buffer(b))) if b.bytes == [0; 12]));
        assert!(read("a=5").unwrap_err().contains("`a` is float[]"));
        assert!(read("b=5").is_err() && read("a").is_err() && read("a=zeros:99999999999").is_err());
        let half = param(ParamType::Array(Element::Half));
        let Ok((_, Value::Buffer(buffer))) = parse("a=iota:3", &[&half], Path::new(".")) else {
            panic!("an array")
        };
        assert_eq!((buffer.bytes.len(), to_json(&buffer)), (6, serde_json::json!([0.0, 1.0, 2.0])));
    }
}
