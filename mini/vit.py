"""Vision Transformer: an image is a sequence of patches.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv:2010.11929. Read downwards,
the file follows section 3.1: patches, positions, one block (eq. 2, 3), the model (eq. 1, 4), and
last what one looks at in a trained one (appendix D.7, D.8). Attention (appendix A, eq. 5-8) stands
in `mini.attention`, for the whole course. Initial values follow the authors' JAX code (zero head,
Xavier-uniform kernels, positions of standard deviation 0.02). Differences from it: exact GELU for
the tanh approximation; no dropout; the patches are cut by a reshape and multiplied by a matrix,
which is the same as a convolution of stride P (claim E1).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mini.attention import Attention

POSITIONS = ("learned", "learned-2d", "sincos", "none")


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut `[B, C, H, W]` into `[B, N, C*P*P]`: patches row by row, each in channel-row-column
    order.

    H and W may differ, N = (H/P) * (W/P). Raises ValueError unless P divides both (section 3.1).
    """
    b, c, h, w = images.shape
    p = patch_size
    if p < 1 or h % p or w % p:
        raise ValueError(
            f"patch_size={p} does not divide an image of {h}x{w}: choose one that does."
        )
    x = images.reshape(b, c, h // p, p, w // p, p)  # [B, C, H/P, P, W/P, P]
    x = x.permute(0, 2, 4, 1, 3, 5)  # [B, H/P, W/P, C, P, P]
    return x.reshape(b, (h // p) * (w // p), c * p * p)  # [B, N, C*P*P]


def sincos_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Fixed 2-D positions `[rows*columns, dim]`: a quarter each of sin x, cos x, sin y, cos y.

    Frequencies are 1 / 10000^(i/(dim/4)), as in Vaswani et al. 2017 and MoCo v3 (Chen et al. 2021).
    """
    if dim % 4:
        raise ValueError(f"dim={dim}: two-dimensional sin-cos positions need a multiple of 4.")
    omega = 10_000.0 ** -(torch.arange(dim // 4) / (dim // 4))  # [D/4]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    x, y = x.reshape(-1, 1) * omega, y.reshape(-1, 1) * omega  # [N, D/4] each
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Interpolate `[1 + rows*columns, D]` from grid `old` to grid `new`; the class row is kept.

    Bicubic, as for fine-tuning at a higher resolution (section 3.2). The same grid is the identity.
    """
    first, grid = positions[:1], positions[1:]
    grid = grid.T.reshape(1, -1, *old)  # [1, D, rows, columns]
    grid = interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat([first, grid.flatten(2)[0].T])  # [1 + N', D]


class Block(nn.Module):
    """z' = MSA(LN(z)) + z, then MLP(LN(z')) + z' (eq. 2, 3): pre-norm, `[B, T, D] -> [B, T, D]`."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1, self.attention = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, z: Tensor) -> Tensor:
        z = z + self.attention(self.norm1(z))
        return z + self.mlp(self.norm2(z))


class ViT(nn.Module):
    """`[B, 3, H, W] -> logits [B, K]`, from the class token after `depth` blocks (eq. 1-4).

    `position` is `learned` (the paper's, "1-D": a vector a place), `learned-2d` (half a vector a
    column, x, beside half a vector a row, y) or `none`, all of appendix D.4, or `sincos` (fixed,
    two-dimensional, not the paper's). Learned ones start with deviation `position_std`. Images of
    another size than `image_size` get interpolated positions, so P must divide them.
    Raises ValueError for a size that P does not divide, or a `dim` that `heads` does not, or that
    `position` cannot be made of.
    """

    def __init__(
        self,
        image_size: int = 32,
        patch_size: int = 4,
        dim: int = 96,
        depth: int = 6,
        heads: int = 3,
        mlp_ratio: float = 4.0,
        num_classes: int = 10,
        position: str = "learned",
        *,
        position_std: float = 0.02,
    ):
        super().__init__()
        if patch_size < 1 or image_size < 1 or image_size % patch_size:
            raise ValueError(f"patch_size={patch_size} does not divide image_size={image_size}.")
        if dim < 1:
            raise ValueError(f"dim={dim}: expected a width of at least 1.")
        if position not in POSITIONS:
            raise ValueError(f"position={position!r}: expected one of {', '.join(POSITIONS)}.")
        if position == "learned-2d" and dim % 2:
            raise ValueError(f"dim={dim}: half of it is for rows, so it must be a multiple of 2.")
        self.patch_size, side = patch_size, image_size // patch_size
        self.grid = (side, side)
        self.embed = nn.Linear(3 * patch_size**2, dim)  # E
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))  # x_class
        self.position = None  # E_pos, [N+1, D]; of learned-2d, its parts
        if position == "learned":
            self.position = nn.Parameter(position_std * torch.randn(side**2 + 1, dim))
        elif position == "learned-2d":
            parts = {"token": (1, dim), "row": (side, dim // 2), "column": (side, dim // 2)}
            self.position = nn.ParameterDict(
                {name: position_std * torch.randn(shape) for name, shape in parts.items()}
            )
        elif position == "sincos":
            del self.position
            fixed = torch.cat([torch.zeros(1, dim), sincos_positions(side, side, dim)])
            self.register_buffer("position", fixed)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.embed.weight, std=self.embed.in_features**-0.5)
        nn.init.zeros_(self.embed.bias)
        for block in self.blocks:
            block.attention.initialise()
            for layer in (block.mlp[0], block.mlp[2]):
                nn.init.xavier_uniform_(layer.weight)
            for layer in (block.mlp[0], block.mlp[2]):
                nn.init.normal_(layer.bias, std=1e-6)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def positions(self) -> Tensor | None:
        """E_pos `[N+1, D]`, the class token's first, on the grid of `image_size`; None without."""
        if not isinstance(self.position, nn.ParameterDict):
            return self.position
        (rows, columns), part = self.grid, self.position
        x = part["column"].expand(rows, -1, -1)  # [rows, columns, D/2]
        y = part["row"][:, None].expand(-1, columns, -1)
        return torch.cat([part["token"], torch.cat([x, y], dim=-1).flatten(0, 1)])

    def tokens(self, images: Tensor) -> Tensor:
        """z_0 `[B, N+1, D]`: class token and embedded patches, plus their positions (eq. 1)."""
        z = self.embed(patchify(images, self.patch_size))  # [B, N, D]
        z = torch.cat([self.class_token.expand(len(z), -1, -1), z], dim=1)  # [B, N+1, D]
        positions = self.positions()
        if positions is None:
            return z
        grid = (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)
        if grid == self.grid:
            return z + positions
        return z + resize_positions(positions, self.grid, grid)

    def encode(self, images: Tensor) -> Tensor:
        """All final tokens, `[B, N+1, D]`: the class token first, then the patches, after LN."""
        z = self.tokens(images)
        for block in self.blocks:
            z = block(z)
        return self.norm(z)

    def features(self, images: Tensor) -> Tensor:
        """y = LN(z_L) of the class token, `[B, D]` (eq. 4)."""
        return self.encode(images)[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def attention_maps(self, images: Tensor) -> Tensor:
        """Every layer's attention weights, `[L, B, heads, N+1, N+1]`: row = query, column = key."""
        z, maps = self.tokens(images), []
        for block in self.blocks:
            maps.append(block.attention.weights(block.norm1(z)))
            z = block(z)
        return torch.stack(maps)


def attention_rollout(maps: Tensor) -> Tensor:
    """How much each input token reaches each final one: `[L, B, heads, T, T] -> [B, T, T]`.

    Heads are averaged, half of the identity stands for the skip connection, and layers multiply
    (Abnar & Zuidema 2020; appendix D.8). Rows sum to 1.
    """
    layers = 0.5 * maps.mean(dim=2) + 0.5 * torch.eye(maps.shape[-1]).to(maps)  # [L, B, T, T]
    rollout = layers[0]
    for layer in layers[1:]:
        rollout = layer @ rollout
    return rollout


def attention_distance(maps: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """Mean distance in pixels from a query patch to what it attends to: `[L, heads]` (appendix
    D.7).

    `maps` is `[L, B, heads, N+1, N+1]`; the class token is left out and each row renormalised.
    """
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    where = torch.stack([y, x], dim=-1).reshape(-1, 2).to(maps) * patch_size  # [N, 2]
    distance = torch.cdist(where, where)  # [N, N]
    patches = maps[..., 1:, 1:]
    patches = patches / patches.sum(dim=-1, keepdim=True)
    return (patches * distance).sum(dim=-1).mean(dim=(1, 3))
