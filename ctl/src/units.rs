//! Numbers for people: few digits and a unit.

/// Bytes: `527 MiB`, `1.2 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], " ")
}

/// Bytes where there is little room: `527M`, `1.2G`.
pub(crate) fn short_bytes(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "K", "M", "G", "T", "P", "E"], "")
}

/// A number of things: `950`, `12.3k`, `4.0M`.
pub(crate) fn count(count: u64) -> String {
    scaled(count, 1000, &["", "k", "M", "G", "T", "P", "E"], "")
}

fn scaled(number: u64, step: u64, units: &[&str], space: &str) -> String {
    let mut unit = 1u64;
    let mut index = 0;
    // Up to the unit in which the rounded number has fewer than four digits before the point.
    while index + 1 < units.len() && number / unit >= step {
        unit *= step;
        index += 1;
    }
    if index == 0 {
        return format!("{number}{space}{}", units[0]);
    }
    let tenths = (u128::from(number) * 10 + u128::from(unit / 2)) / u128::from(unit);
    if tenths >= 1000 {
        format!("{}{space}{}", (tenths + 5) / 10, units[index])
    } else {
        format!("{}.{}{space}{}", tenths / 10, tenths % 10, units[index])
    }
}

/// A time: `12 s`, `3 min`, `5 h 07`, `2 d 03 h`.
pub(crate) fn seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {:02}", minutes % 60),
        _ => format!("{days} d {:02} h", hours % 24),
    }
}

/// At most `width` characters; what is cut is marked.
pub(crate) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Lines of at most `width` characters, broken at spaces; a longer word keeps a line of its own.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(527 << 20), "527 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(short_bytes(3 << 29), "1.5G");
        assert_eq!(short_bytes(1023), "1023B");
        assert_eq!(count(999), "999");
        assert_eq!(count(12_345), "12.3k");
        assert_eq!(count(4_000_000), "4.0M");
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!(seconds(59), "59 s");
        assert_eq!(seconds(60), "1 min");
        assert_eq!(seconds(3600 * 5 + 7 * 60), "5 h 07");
        assert_eq!(seconds(86_400 * 2 + 3600 * 3), "2 d 03 h");
    }

    #[test]
    fn few_columns() {
        assert_eq!(fit("vector_add", 10), "vector_add");
        assert_eq!(fit("vector_add2", 10), "vector_ad…");
        assert_eq!(wrap("a bb  ccc\ndddd", 5), ["a bb", "ccc", "dddd"]);
        assert_eq!(wrap("", 5), Vec::<String>::new());
    }
}
