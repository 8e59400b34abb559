//! Texture and surface instructions.

use super::{Arg, f32s, grid, launch, module, refused, u32s};
use crate::device::array::Image;
use crate::device::texture::{Object, Source, insert, remove};
use pxos_protocol::types::{CUDA_RESOURCE_DESC, CUDA_TEXTURE_DESC, array_format};

/// A texture or surface over rows of four texels each.
fn object(rows: &[[f32; 4]], texture: bool) -> u64 {
    let image = Image {
        address: rows.as_ptr().expose_provenance() as u64,
        pitch: 16,
        plane: size_of_val(rows) as u64,
        size: [4, u32::try_from(rows.len()).unwrap(), 1],
        format: array_format::FLOAT,
        channels: 1,
        layered: false,
    };
    insert(Object {
        life: 1,
        source: Source::Linear(image),
        texture: texture.then(|| CUDA_TEXTURE_DESC { address_mode: [1; 3], ..CUDA_TEXTURE_DESC::default() }),
        resource: CUDA_RESOURCE_DESC { kind: 2, words: [0; 16], flags: 0 },
        view: None,
        layers: None,
        seen_as: None,
    })
}

const READ: &str = "
.visible .entry read(.param .u64 texture, .param .u64 out)
{
    .reg .pred %p<2>;
    .reg .b32 %r<8>;
    .reg .f32 %f<12>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [texture];
    ld.param.u64 %rd2, [out];
    mov.u32 %r1, %tid.x;
    and.b32 %r2, %r1, 3;
    shr.u32 %r3, %r1, 2;
    cvt.rn.f32.u32 %f1, %r2;
    cvt.rn.f32.u32 %f2, %r3;
    add.f32 %f1, %f1, 0f3F000000;
    add.f32 %f2, %f2, 0f3F000000;
    tex.2d.v4.f32.f32 {%f3, %f4, %f5, %f6}|%p1, [%rd1, {%f1, %f2}];
    tex.2d.v4.f32.s32 {%f7, _, _, %f8}, [%rd1, {%r2, %r3}];
    selp.f32 %f9, 0f40000000, 0f00000000, %p1;
    mul.f32 %f3, %f3, %f9;
    add.f32 %f3, %f3, %f7;
    add.f32 %f3, %f3, %f8;
    txq.height.b32 %r4, [%rd1];
    cvt.rn.f32.u32 %f10, %r4;
    add.f32 %f3, %f3, %f10;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd3, %rd2, %rd3;
    st.global.f32 [%rd3], %f3;
    ret;
}";

#[test]
fn a_texture_is_read_by_every_lane() {
    let rows = [[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]];
    let texture = object(&rows, true);
    let mut out = vec![0; 32];
    let mut args = [Arg::U64(texture), Arg::Buffer(&mut out)];
    launch(&module(READ), "read", &grid(1, 8), &mut args).unwrap();
    // Twice the texel, for it is resident, once more by number, one for alpha, two rows.
    let want: Vec<f32> = rows.iter().flatten().map(|texel| 3.0 * texel + 3.0).collect();
    assert_eq!(f32s(&out), want);
    assert!(remove(texture));
    let mut args = [Arg::U64(texture), Arg::Buffer(&mut out)];
    let fault = launch(&module(READ), "read", &grid(1, 8), &mut args).unwrap_err();
    assert!(fault.message.contains("no live object"), "{fault}");
}

fn surface_text(clamp: &str) -> String {
    module(&format!(
        "
.visible .entry shift(.param .u64 surface, .param .u64 out)
{{
    .reg .b32 %r<8>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [surface];
    ld.param.u64 %rd2, [out];
    mov.u32 %r1, %tid.x;
    shl.b32 %r2, %r1, 2;
    mov.u32 %r3, 0;
    suld.b.2d.b32.{clamp} {{%r4}}, [%rd1, {{%r2, %r3}}];
    mov.u32 %r5, 1;
    sust.b.2d.b32.zero [%rd1, {{%r2, %r5}}], {{%r4}};
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd3, %rd2, %rd3;
    st.global.u32 [%rd3], %r4;
    ret;
}}"
    ))
}

#[test]
fn surfaces_end_as_they_are_told() {
    let one = 1.0_f32.to_bits();
    for (clamp, last) in [("clamp", Some(4.0_f32.to_bits())), ("zero", Some(0)), ("trap", None)] {
        let rows = [[1.0, 2.0, 3.0, 4.0], [0.0; 4]];
        let surface = object(&rows, false);
        let mut out = vec![0; 24];
        let mut args = [Arg::U64(surface), Arg::Buffer(&mut out)];
        let ended = launch(&surface_text(clamp), "shift", &grid(1, 6), &mut args);
        match last {
            Some(last) => {
                ended.unwrap();
                assert_eq!([u32s(&out)[0], u32s(&out)[5]], [one, last], "{clamp}");
            }
            None => assert!(ended.unwrap_err().message.contains("outside")),
        }
        assert!(remove(surface));
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let with = |line: &str| {
        refused(&format!(
            ".visible .entry k(.param .u64 t) {{ .reg .f32 %f<8>; .reg .b32 %r<4>; .reg .b64 %rd<4>; {line} ret; }}"
        ))
        .to_string()
    };
    let text = with("tex.2dms.v4.f32.s32 {%f1, %f2, %f3, %f4}, [%rd1, {%r1, %r2, %r3, %r3}];");
    assert!(text.contains("tex.2dms.v4.f32.s32 is not supported"), "{text}");
    let text = with("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, %rd2, {%f5, %f6}];");
    assert!(text.contains("samplers"), "{text}");
    let text = with("sust.p.2d.b32.trap [%rd1, {%r1, %r2}], {%r3};");
    assert!(text.contains("sust.p.2d.b32.trap is not supported"), "{text}");
    let text = with("suld.b.2d.v4.b64.trap {%rd1, %rd2, %rd3, %rd3}, [%rd1, {%r1, %r2}];");
    assert!(text.contains("1 to 16 bytes"), "{text}");
}
