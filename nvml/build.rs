//! Gives the library the soname by which programs look for NVML: a preloaded one is then found by
//! `dlopen("libnvidia-ml.so.1")`, too.
fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    println!("cargo:rerun-if-changed=build.rs");
}
