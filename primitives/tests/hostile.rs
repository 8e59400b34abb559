//! Texts that mean harm to the compiler: each ends in an error that says what is wrong, on a bounded stack and with memory
//! in proportion to the text, also where the limit on the text would not stop it first.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pxos_primitives::{Diagnostic, Options, compile};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// One test at a time: the counters are the process's.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: by the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: by the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Compiles a text that must be refused; what was found, and bytes of memory at the most.
fn refused(text: &str, options: &Options) -> (Vec<Diagnostic>, usize) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let outcome = compile(text, options);
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    let start: String = text.chars().take(60).collect();
    let Err(found) = outcome else { panic!("it compiles: {start}") };
    assert!(!found.is_empty() && found.len() <= options.max_diagnostics + 1, "{start}: {}", found.len());
    for diagnostic in &found {
        assert!(diagnostic.render("hostile", text).len() < 4096, "{start}");
    }
    (found, most)
}

const MILLION: usize = 1_000_000;

/// A kernel around some statements.
fn kernel(body: &str) -> String {
    format!("GPU_KERNEL k\nGPU_PARAM o int[]\nGPU_THREAD_CODE:\n    {body}\nGPU_END\n")
}

/// Each thing that can stand within another, so often.
fn deep(times: usize) -> Vec<String> {
    vec![
        kernel(&"IF 1 < 2: ".repeat(times)),
        kernel(&"IF 1 < 2:\n    ".repeat(times)),
        kernel(&format!("STORE {}1{} → o[0]", "(".repeat(times), ")".repeat(times))),
        kernel(&"FOR i IN 0..2: ".repeat(times)),
        kernel(&format!("IF 1 < 2:\n        STORE 1 → o[0]\n    {}", "ELIF 1 < 2: ".repeat(times))),
        kernel(&format!("STORE {} → o[0]", "(".repeat(times))),
        kernel(&format!("STORE {}1 → o[0]", "- ".repeat(times))),
        kernel(&format!("STORE 1{} → o[0]", " + 1".repeat(times))),
        kernel(&format!("STORE {}0{} → o[0]", "o[".repeat(times), "]".repeat(times))),
        kernel(&format!("STORE {}1{} → o[0]", "min(1, ".repeat(times), ")".repeat(times))),
        "GPU_KERNEL k\n".repeat(times),
        "GPU_CONST t int[] 1\n".repeat(times),
    ]
}

#[test]
fn a_long_text_is_refused_for_its_length_before_anything_else() {
    let _alone = alone();
    let long = "IF 1 < 2:\n".repeat(MILLION);
    assert!(long.len() >= 10_000_000);
    for text in [long, "\u{0}".repeat(10 << 20), "→".repeat(4 << 20)] {
        let (found, most) = refused(&text, &Options::default());
        assert!(found.len() == 1 && found[0].code == "too-large", "{found:?}");
        let message = format!("the program has {} bytes; at most 262144 are allowed", text.len());
        assert_eq!(found[0].message, message);
        assert!(most < 64 << 10, "{most} bytes");
    }
}

#[test]
fn a_million_of_anything_within_another_is_an_error_and_no_overflow() {
    let _alone = alone();
    let options = Options { max_text: 64 << 20, ..Options::default() };
    // A million IFs; of the others as many as a text of a few hundred kilobytes holds.
    for text in deep(MILLION).into_iter().take(1).chain(deep(100_000)) {
        let start: String = text.chars().skip(52).take(40).collect();
        let (found, most) = refused(&text, &options);
        let lines = text.lines().count();
        assert!(
            found.iter().all(|d| (1..=lines + 1).contains(&(d.span.line as usize))),
            "{start}: {found:?}"
        );
        // What the words of a text take, about forty bytes each and twice that while their list grows.
        assert!(most < 128 * text.len() + (16 << 20), "{start}: {most} bytes for {} of text", text.len());
    }
}

#[test]
fn within_the_limit_memory_is_bounded_as_well() {
    let _alone = alone();
    for text in deep(100_000) {
        let mut end = 250_000.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (found, most) = refused(&text[..end], &Options::default());
        assert!(found.iter().all(|d| !d.message.is_empty()), "{found:?}");
        assert!(most < 64 << 20, "{most} bytes");
    }
    // Text that grows when it is expanded.
    let doubling: String = (0..60)
        .map(|n| {
            let next = if n == 59 { "1".to_owned() } else { format!("f{0}() + f{0}()", n + 1) };
            format!("GPU_FUNCTION f{n}() → int:\n    RETURN {next}\nGPU_END\n")
        })
        .collect();
    let (found, most) = refused(&(doubling + &kernel("STORE f0() → o[0]")), &Options::default());
    assert!(found.iter().any(|d| d.code == "too-large" || d.code == "nesting"), "{found:?}");
    assert!(most < 256 << 20, "{most} bytes");
}
