// Proves float arithmetic with rsqrtf and fused operations over many dependent launches, float4 loads and shared
// memory tiles: gravitation of bodies, compared with a double-precision CPU integration and by momentum.
// Arguments: bodies (default 192), steps (default 5).
#include <vector>

#include "common.h"

constexpr int TILE = 64;
constexpr float SOFTENING = 0.05f, STEP = 0.001f;

__global__ void move(const float4 *from, float4 *to, float4 *velocity, int count) {
    __shared__ float4 tile[TILE];
    int i = blockIdx.x * TILE + threadIdx.x;
    float4 own = i < count ? from[i] : make_float4(0, 0, 0, 0);
    float ax = 0, ay = 0, az = 0;
    for (int base = 0; base < count; base += TILE) {
        int j = base + threadIdx.x;
        tile[threadIdx.x] = j < count ? from[j] : make_float4(0, 0, 0, 0);
        __syncthreads();
        for (int k = 0; k < TILE; ++k) {
            float4 other = tile[k];
            float dx = other.x - own.x, dy = other.y - own.y, dz = other.z - own.z;
            float inverse = rsqrtf(dx * dx + dy * dy + dz * dz + SOFTENING * SOFTENING);
            float pull = other.w * inverse * inverse * inverse;
            ax += dx * pull;
            ay += dy * pull;
            az += dz * pull;
        }
        __syncthreads();
    }
    if (i >= count) return;
    float4 v = velocity[i];
    v.x += ax * STEP;
    v.y += ay * STEP;
    v.z += az * STEP;
    velocity[i] = v;
    to[i] = make_float4(own.x + v.x * STEP, own.y + v.y * STEP, own.z + v.z * STEP, own.w);
}

int main(int argc, char **argv) {
    int count = argument(argc, argv, 1, 192), steps = argument(argc, argv, 2, 5);
    std::vector<float4> position(count), velocity(count, make_float4(0, 0, 0, 0));
    std::vector<double> p(3 * count), v(3 * count, 0.0);
    Random random(10);
    for (int i = 0; i < count; ++i) {
        position[i] = make_float4(random.uniform() - 0.5f, random.uniform() - 0.5f, random.uniform() - 0.5f, 0.5f + random.uniform());
        p[3 * i] = position[i].x;
        p[3 * i + 1] = position[i].y;
        p[3 * i + 2] = position[i].z;
    }
    for (int step = 0; step < steps; ++step) {
        std::vector<double> next(p);
        for (int i = 0; i < count; ++i) {
            double a[3] = {};
            for (int j = 0; j < count; ++j) {
                double d[3], square = SOFTENING * SOFTENING;
                for (int k = 0; k < 3; ++k) {
                    d[k] = p[3 * j + k] - p[3 * i + k];
                    square += d[k] * d[k];
                }
                double pull = position[j].w / (square * std::sqrt(square));
                for (int k = 0; k < 3; ++k) a[k] += d[k] * pull;
            }
            for (int k = 0; k < 3; ++k) {
                v[3 * i + k] += a[k] * STEP;
                next[3 * i + k] += v[3 * i + k] * STEP;
            }
        }
        p.swap(next);
    }
    size_t size = count * sizeof(float4);
    float4 *a, *b, *device_velocity;
    CHECK(cudaMalloc(&a, size));
    CHECK(cudaMalloc(&b, size));
    CHECK(cudaMalloc(&device_velocity, size));
    CHECK(cudaMemcpy(a, position.data(), size, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_velocity, velocity.data(), size, cudaMemcpyHostToDevice));
    for (int step = 0; step < steps; ++step) {
        move<<<divide_up(count, TILE), TILE>>>(a, b, device_velocity, count);
        CHECK_LAUNCH();
        std::swap(a, b);
    }
    CHECK(cudaMemcpy(position.data(), a, size, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(velocity.data(), device_velocity, size, cudaMemcpyDeviceToHost));
    double momentum[3] = {}, scale = 0;
    for (int i = 0; i < count; ++i) {
        float got[6] = {position[i].x, position[i].y, position[i].z, velocity[i].x, velocity[i].y, velocity[i].z}, want[6];
        for (int k = 0; k < 3; ++k) {
            want[k] = static_cast<float>(p[3 * i + k]);
            want[3 + k] = static_cast<float>(v[3 * i + k]);
            momentum[k] += static_cast<double>(position[i].w) * got[3 + k];
            scale += position[i].w * std::fabs(got[3 + k]);
        }
        require_close("position", got, want, 3, 0, 1e-5);
        require_close("velocity", got + 3, want + 3, 3, 1e-3, 1e-3);
    }
    for (double m : momentum) REQUIRE(std::fabs(m) <= 1e-4 * scale);
    std::printf("%d bodies, %d steps, momentum kept\n", count, steps);
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(device_velocity));
    return pass();
}
