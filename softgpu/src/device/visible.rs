//! Which devices a process sees, and in which order: `CUDA_VISIBLE_DEVICES`, as CUDA reads it (CUDA C++ Programming Guide,
//! "CUDA Environment Variables"): ordinals or beginnings of UUIDs with commas between. What stands behind the first entry
//! that names no device is not read.

use pxos_protocol::types::CUuuid;

/// The UUID of a board, the same in every process.
pub(crate) fn uuid(board: i32) -> CUuuid {
    let mut bytes = *b"pxOS softgpu\0\0\0\0";
    bytes[12..].copy_from_slice(&board.to_be_bytes());
    CUuuid { bytes }
}

/// A UUID as the variable has it: `GPU-` and five groups of hexadecimal digits.
fn text(uuid: &CUuuid) -> String {
    let mut text = "GPU".to_owned();
    for (index, byte) in uuid.bytes.iter().enumerate() {
        let dash = if [0, 4, 6, 8, 10].contains(&index) { "-" } else { "" };
        text += &format!("{dash}{byte:02x}");
    }
    text
}

/// The boards that are seen of `count`, by ordinal.
pub(crate) fn boards(count: i32, wanted: Option<&str>) -> Vec<i32> {
    let Some(wanted) = wanted else { return (0..count).collect() };
    let mut seen = Vec::new();
    for word in wanted.split(',') {
        match board(count, word.trim()) {
            Some(board) if !seen.contains(&board) => seen.push(board),
            _ => break,
        }
    }
    seen
}

fn board(count: i32, word: &str) -> Option<i32> {
    if let Ok(ordinal) = word.parse::<i32>() {
        return (0..count).contains(&ordinal).then_some(ordinal);
    }
    let word = word.to_ascii_lowercase();
    let digits = word.strip_prefix("gpu-")?;
    let mut found = (0..count).filter(|board| text(&uuid(*board))[4..].starts_with(digits));
    let only = found.next();
    only.filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_seen_in_the_order_in_which_they_are_named() {
        let whole = text(&uuid(1));
        assert_eq!(whole, "GPU-70784f53-2073-6f66-7467-707500000001");
        assert_eq!(boards(3, None), [0, 1, 2]);
        assert_eq!(boards(3, Some("2, 0")), [2, 0]);
        assert_eq!(boards(3, Some(&format!("{whole},0"))), [1, 0]);
        // A beginning that two have names none; nor does a number that is too great, nor a device that was named before.
        assert_eq!(boards(3, Some("0,GPU-7078,1")), [0]);
        assert_eq!(boards(1, Some("GPU-7078")), [0]);
        assert_eq!(boards(2, Some("1,2,0")), [1]);
        assert_eq!(boards(2, Some("1,1,0")), [1]);
        assert!(boards(2, Some("")).is_empty() && boards(2, Some("-1")).is_empty());
    }
}
